//! Bytes as digits.

use std::fmt::Write;

/// Two hexadecimal digits, in lower case, for each byte.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    let mut digits = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // A string takes any text.
        let _ = write!(digits, "{byte:02x}");
    }
    digits
}

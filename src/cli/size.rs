//! Sizes as people write them.

/// Bytes from `65536`, `64k`, `64KiB` (1024 each) or `64kB` (1000), up to `T`; case does not matter, except that nothing
/// may stand between the number and the unit.
///
/// # Errors
/// A line that says what is wrong with it.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => {
            return Err(format!(
                "`{text}` is not a size; write for example 256MiB, 64k, 1G or a number of bytes"
            ));
        }
    };
    if number.is_empty() {
        return Err(format!(
            "`{text}` is not a size; a number has to come first, as in 256MiB"
        ));
    }
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("`{text}` is more than 64 bits of bytes"))
}

/// A number of bytes as people read it: at most four digits before the unit, of 1024 each.
pub(super) fn shown_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of the unit, rounded down: a file is never said to be larger than it is.
    let (mut unit, mut tenths) = (0, u128::from(bytes) * 10 / 1024);
    while tenths >= 10 * 1024 {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(shown_size(bytes), text);
        }
    }

    #[test]
    fn every_unit() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64k", 65536),
            ("256MiB", 268_435_456),
            ("1G", 1 << 30),
            ("2t", 2 << 40),
            ("5kB", 5000),
            ("3mb", 3_000_000),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "k",
            "-1",
            "1.5G",
            "12 k",
            "1X",
            "18446744073709551616",
            "16777216T",
        ] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}

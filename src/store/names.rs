//! Names that a path can carry.
//!
//! A link's name in HDF5 is any bytes without `/` and NUL. A path component is at most 255 bytes and neither `.` nor `..`. Nearly
//! every name is both, and is shown as it is; the others are shown escaped, and are found under that form only.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::hexadecimal;

/// The longest path component on Linux, in bytes (`NAME_MAX`).
pub const NAME_MAX_BYTES: usize = 255;
/// So many forms of a name with a suffix are tried: a second one that is taken too was made to be.
const SUFFIXED_FORMS: usize = 4;
/// Hexadecimal digits of the hash that stands for the rest of a long name.
const HASH_DIGITS: usize = 16;

/// How `name` is shown where no other name stands in its way.
///
/// `.` and `..` have their dots written `%2E`; what is longer than 255 bytes is cut (at a character's boundary, if it is
/// UTF-8) and followed by `%` and the first 16 hexadecimal digits of the whole name's SHA-256. A `/`, a NUL and an empty name,
/// which no writer makes but a damaged file may hold, are escaped too.
#[must_use]
pub(super) fn shown_name(name: &[u8]) -> Vec<u8> {
    if name.is_empty() {
        return b"%".to_vec();
    }
    let escaped: Vec<u8> = if name == b"." || name == b".." {
        b"%2E".repeat(name.len())
    } else if name.iter().any(|byte| matches!(byte, b'/' | 0)) {
        name.iter().flat_map(|&byte| escape_byte(byte)).collect()
    } else {
        name.to_vec()
    };
    if escaped.len() <= NAME_MAX_BYTES {
        escaped
    } else {
        with_hash(&escaped, name, NAME_MAX_BYTES)
    }
}

/// The names of one directory and how each is shown: one to one, whatever the names are.
///
/// Names that need no escape are shown as they are. Where an escaped form is also the true name of another entry, the hash of
/// the escaped entry's name is added to it.
#[must_use]
pub(super) fn shown_names<'a>(names: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let names: Vec<&[u8]> = names.collect();
    let mut shown: Vec<Vec<u8>> = names.iter().map(|name| shown_name(name)).collect();
    let escaped: Vec<usize> = (0..names.len()).filter(|&i| shown[i] != names[i]).collect();
    if !escaped.is_empty() {
        let mut uses: HashMap<&[u8], usize> = HashMap::new();
        for name in &shown {
            *uses.entry(name).or_default() += 1;
        }
        let clashing: Vec<usize> = escaped
            .into_iter()
            .filter(|&i| uses[shown[i].as_slice()] > 1)
            .collect();
        for i in clashing {
            shown[i] = with_hash(&shown[i], names[i], NAME_MAX_BYTES);
        }
    }
    shown
}

/// The names under which something shown as `shown` may be found where names of its kind end with `suffix`, the most wanted first: that
/// one itself, where it is not too long, and then, in case another has it, ever new hashes in it.
#[must_use]
pub(crate) fn suffixed_forms(name: &[u8], shown: &[u8], suffix: &[u8]) -> Vec<Vec<u8>> {
    let plain = [shown, suffix].concat();
    let mut forms = Vec::with_capacity(SUFFIXED_FORMS);
    if plain.len() <= NAME_MAX_BYTES {
        forms.push(plain);
    }
    let mut name = name.to_vec();
    while forms.len() < SUFFIXED_FORMS {
        let mut form = with_hash(shown, &name, NAME_MAX_BYTES - suffix.len());
        form.extend_from_slice(suffix);
        name.clone_from(&form);
        forms.push(form);
    }
    forms
}

/// All forms in which a directory may show `name`, whatever else it contains.
#[must_use]
pub(crate) fn shown_forms(name: &[u8]) -> Vec<Vec<u8>> {
    let shown = shown_name(name);
    if shown == name {
        return vec![shown];
    }
    let with_hash = with_hash(&shown, name, NAME_MAX_BYTES);
    vec![shown, with_hash]
}

fn escape_byte(byte: u8) -> Vec<u8> {
    match byte {
        b'/' | 0 => format!("%{byte:02X}").into_bytes(),
        _ => vec![byte],
    }
}

/// The beginning of `shown`, `%`, and the hash of `name`: `max_bytes` at most.
fn with_hash(shown: &[u8], name: &[u8], max_bytes: usize) -> Vec<u8> {
    let mut end = shown.len().min(max_bytes - HASH_DIGITS - 1);
    if let Ok(text) = std::str::from_utf8(shown) {
        end = (0..=end)
            .rev()
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(0);
    }
    let digest = Sha256::digest(name);
    let mut cut = shown[..end].to_vec();
    cut.push(b'%');
    cut.extend_from_slice(hexadecimal(&digest[..HASH_DIGITS / 2]).as_bytes());
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_name_is_shown_as_it_is() {
        for name in [
            &b"r1"[..],
            b"100%",
            b"%2E",
            b" ",
            b"\xff\xfe",
            "\u{e9}t\u{e9}".as_bytes(),
        ] {
            assert_eq!(shown_name(name), name);
        }
    }

    #[test]
    fn dots_are_escaped() {
        assert_eq!(shown_name(b"."), b"%2E");
        assert_eq!(shown_name(b".."), b"%2E%2E");
        assert_eq!(shown_name(b"..."), b"...");
    }

    #[test]
    fn a_long_name_keeps_its_beginning_and_differs_by_its_hash() {
        let long = [b'a'; 300];
        let other = [b'a'; 301];
        let shown = shown_name(&long);
        assert_eq!(shown.len(), 255);
        assert_eq!(
            &shown[..239],
            &long[..238].iter().chain(b"%").copied().collect::<Vec<_>>()[..]
        );
        assert!(shown[239..].iter().all(u8::is_ascii_hexdigit));
        assert_ne!(shown, shown_name(&other));
    }

    #[test]
    fn a_long_name_is_cut_between_characters() {
        let long = "\u{20ac}".repeat(100);
        let shown = shown_name(long.as_bytes());
        assert!(shown.len() <= 255);
        assert!(std::str::from_utf8(&shown).is_ok());
    }

    #[test]
    fn a_suffix_is_kept_however_long_the_name() {
        let forms = |name: &[u8]| suffixed_forms(name, &shown_name(name), b".npy");
        assert_eq!(forms(b"x")[0], b"x.npy");
        assert!(forms(b"x")[1].starts_with(b"x%"));
        assert_eq!(forms(&[b'x'; 251])[0].len(), 255);
        for name in [&[b'x'; 252][..], &[b'x'; 255], &[b'x'; 300]] {
            let found = forms(name);
            assert_eq!(found.len(), 4);
            assert!(found.iter().all(|form| form.len() == 255));
            assert!(found.iter().all(|form| form.ends_with(b".npy")));
            let distinct: std::collections::HashSet<_> = found.iter().collect();
            assert_eq!(distinct.len(), 4);
        }
        assert_ne!(forms(&[b'x'; 252])[0], forms(&[b'x'; 253])[0]);
    }

    #[test]
    fn an_escaped_form_never_hides_a_true_name() {
        let names: [&[u8]; 3] = [b"%2E%2E", b"..", b"x"];
        let shown = shown_names(names.iter().copied());
        assert_eq!(shown[0], b"%2E%2E");
        assert_eq!(shown[2], b"x");
        assert!(shown[1].starts_with(b"%2E%2E%"));
    }
}

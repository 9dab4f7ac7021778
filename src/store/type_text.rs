//! Element types as HDF5 has them, as JSON: all that a NumPy type does not say, such as the names of an enumeration.
//!
//! | `class` | further keys |
//! | --- | --- |
//! | `integer`, `bitfield` | `signed` (integers only), `order`; `bit_offset` and `bits` where not all bits count |
//! | `float` | `order`, and the layout where it is not the IEEE 754 one of its size |
//! | `string` | `charset`, `padding`; without `size` where the length varies |
//! | `enum` | `base`, `members`: values by name |
//! | `compound` | `members`: `name`, `offset` and `type` of each, in the order of the file |
//! | `array` | `shape`, `base` |
//! | `sequence`, `complex` | `base` |
//! | `opaque` | `tag` |
//! | `reference` | `to` |
//! | `time` | `order` |
//!
//! `size` is in bytes, of one element as it is stored.

use super::dtype::is_numpy_float;
use super::json::{self, NoHeap};
use crate::h5::{ByteOrder, Class, Datatype, EnumMember, ReferenceKind};

/// Appends the type on one line. Types are as deep as [`Datatype::decode`] lets them be.
pub(super) fn write(datatype: &Datatype, out: &mut Vec<u8>) {
    let mut object = Object::begin(class_name(&datatype.class), out);
    let varies = matches!(
        datatype.class,
        Class::VlenString { .. } | Class::VlenSequence { .. }
    );
    if !varies {
        object.number("size", datatype.size as u64);
    }
    match &datatype.class {
        Class::Integer {
            signed,
            order,
            bit_offset,
            bit_precision,
        } => {
            object.key("signed").display(signed);
            object.word("order", order_name(*order));
            object.bits(datatype.size, *bit_offset, *bit_precision);
        }
        Class::Bitfield {
            order,
            bit_offset,
            bit_precision,
        } => {
            object.word("order", order_name(*order));
            object.bits(datatype.size, *bit_offset, *bit_precision);
        }
        Class::Float { .. } => object.float(datatype),
        Class::Time { order } => object.word("order", order_name(*order)),
        Class::FixedString { padding, utf8 } | Class::VlenString { padding, utf8 } => {
            object.word("charset", if *utf8 { "utf-8" } else { "ascii" });
            object.word(
                "padding",
                match padding {
                    0 => "null-terminated",
                    1 => "null-padded",
                    2 => "space-padded",
                    _ => "unknown",
                },
            );
        }
        Class::Opaque { tag } => json::write_string(tag, object.key("tag").out),
        Class::Compound { members } => {
            let out = &mut *object.key("members").out;
            out.push(b'[');
            for (number, member) in members.iter().enumerate() {
                out.extend_from_slice(if number == 0 { b"{" } else { b", {" });
                out.extend_from_slice(b"\"name\": ");
                json::write_string(&member.name, out);
                out.extend_from_slice(
                    format!(", \"offset\": {}, \"type\": ", member.offset).as_bytes(),
                );
                write(&member.datatype, out);
                out.push(b'}');
            }
            out.push(b']');
        }
        Class::Reference { kind } => match kind {
            ReferenceKind::Object => object.word("to", "object"),
            ReferenceKind::Region => object.word("to", "region"),
            ReferenceKind::Revised(number) => object.number("to", u64::from(*number)),
        },
        Class::Enum { base, members } => {
            write(base, object.key("base").out);
            write_enum_members(base, members, object.key("members").out);
        }
        Class::Array { shape, base } => {
            let shape = shape.iter().map(u64::to_string).collect::<Vec<_>>();
            object
                .key("shape")
                .display(format_args!("[{}]", shape.join(", ")));
            write(base, object.key("base").out);
        }
        Class::VlenSequence { base } | Class::Complex { base } => {
            write(base, object.key("base").out);
        }
    }
    object.end();
}

fn class_name(class: &Class) -> &'static str {
    match class {
        Class::Integer { .. } => "integer",
        Class::Float { .. } => "float",
        Class::Time { .. } => "time",
        Class::FixedString { .. } | Class::VlenString { .. } => "string",
        Class::Bitfield { .. } => "bitfield",
        Class::Opaque { .. } => "opaque",
        Class::Compound { .. } => "compound",
        Class::Reference { .. } => "reference",
        Class::Enum { .. } => "enum",
        Class::VlenSequence { .. } => "sequence",
        Class::Array { .. } => "array",
        Class::Complex { .. } => "complex",
    }
}

fn order_name(order: ByteOrder) -> &'static str {
    match order {
        ByteOrder::Little => "little",
        ByteOrder::Big => "big",
        ByteOrder::Vax => "vax",
    }
}

/// Values by name; one that cannot be read as the base type is `null`.
fn write_enum_members(base: &Datatype, members: &[EnumMember], out: &mut Vec<u8>) {
    out.push(b'{');
    for (number, member) in members.iter().enumerate() {
        if number > 0 {
            out.extend_from_slice(b", ");
        }
        json::write_string(&member.name, out);
        out.extend_from_slice(b": ");
        let mut value = Vec::new();
        match json::write_json(base, &member.value, &NoHeap, &mut value) {
            Ok(()) => out.extend_from_slice(&value),
            Err(_) => out.extend_from_slice(b"null"),
        }
    }
    out.push(b'}');
}

/// A JSON object on one line, in the making.
struct Object<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Object<'o> {
    fn begin(class: &str, out: &'o mut Vec<u8>) -> Self {
        out.extend_from_slice(format!("{{\"class\": \"{class}\"").as_bytes());
        Self { out }
    }

    fn key(&mut self, key: &str) -> &mut Self {
        self.display(format_args!(", \"{key}\": "));
        self
    }

    fn display(&mut self, value: impl std::fmt::Display) {
        self.out.extend_from_slice(value.to_string().as_bytes());
    }

    fn number(&mut self, key: &str, value: u64) {
        self.key(key).display(value);
    }

    /// A value that needs no escapes.
    fn word(&mut self, key: &str, word: &str) {
        self.key(key).display(format_args!("\"{word}\""));
    }

    /// Which bits count, where not all do.
    fn bits(&mut self, size: usize, offset: u16, precision: u16) {
        if offset != 0 || usize::from(precision) != size.saturating_mul(8) {
            self.number("bit_offset", u64::from(offset));
            self.number("bits", u64::from(precision));
        }
    }

    fn float(&mut self, datatype: &Datatype) {
        let Class::Float {
            order,
            bit_offset,
            bit_precision,
            sign_location,
            exponent_location,
            exponent_size,
            mantissa_location,
            mantissa_size,
            exponent_bias,
            mantissa_normalization,
        } = datatype.class
        else {
            return;
        };
        self.word("order", order_name(order));
        if matches!(datatype.size, 2 | 4 | 8) && is_numpy_float(datatype) {
            return;
        }
        self.number("bit_offset", u64::from(bit_offset));
        self.number("bits", u64::from(bit_precision));
        self.number("sign_location", u64::from(sign_location));
        self.number("exponent_location", u64::from(exponent_location));
        self.number("exponent_bits", u64::from(exponent_size));
        self.number("exponent_bias", u64::from(exponent_bias));
        self.number("mantissa_location", u64::from(mantissa_location));
        self.number("mantissa_bits", u64::from(mantissa_size));
        self.key("mantissa_is_implied")
            .display(mantissa_normalization == 2);
    }

    fn end(self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h5::ByteOrder::{Big, Little};
    use crate::store::type_samples::*;

    fn text(datatype: &Datatype) -> String {
        let mut out = Vec::new();
        write(datatype, &mut out);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    }

    #[test]
    fn every_class_is_described() {
        for (datatype, expected) in [
            (
                integer(4, true, Big),
                r#"{"class": "integer", "size": 4, "signed": true, "order": "big"}"#,
            ),
            (
                float(8, Little),
                r#"{"class": "float", "size": 8, "order": "little"}"#,
            ),
            (
                fixed_string(5, 1),
                r#"{"class": "string", "size": 5, "charset": "ascii", "padding": "null-padded"}"#,
            ),
            (
                opaque(3, "a \"tag\""),
                r#"{"class": "opaque", "size": 3, "tag": "a \"tag\""}"#,
            ),
            (
                boolean(),
                r#"{"class": "enum", "size": 1, "base": {"class": "integer", "size": 1, "signed": true, "order": "little"}, "members": {"FALSE": 0, "TRUE": 1}}"#,
            ),
            (
                array(&[2, 3], integer(1, false, Little)),
                r#"{"class": "array", "size": 6, "shape": [2, 3], "base": {"class": "integer", "size": 1, "signed": false, "order": "little"}}"#,
            ),
            (
                sequence(integer(1, false, Little)),
                r#"{"class": "sequence", "base": {"class": "integer", "size": 1, "signed": false, "order": "little"}}"#,
            ),
            (
                compound(4, vec![("a", 2, integer(1, false, Little))]),
                r#"{"class": "compound", "size": 4, "members": [{"name": "a", "offset": 2, "type": {"class": "integer", "size": 1, "signed": false, "order": "little"}}]}"#,
            ),
        ] {
            assert_eq!(text(&datatype), expected);
        }
        let mut narrow = integer(2, false, Little);
        if let Class::Integer { bit_precision, .. } = &mut narrow.class {
            *bit_precision = 12;
        }
        assert!(text(&narrow).ends_with(r#""bit_offset": 0, "bits": 12}"#));
        assert!(text(&vlen_string()).starts_with(r#"{"class": "string", "charset": "#));
    }
}

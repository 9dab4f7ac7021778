//! Values as people write them: JSON, and on request Python's literals, which NumPy prints types as.
//!
//! Numbers keep their text, so that none loses a digit before its type is known; `NaN` and `Infinity` are numbers, as Python's `json` writes them.
//! Strings are bytes: `\udc80` to `\udcff` stand for what is not UTF-8, as in [`super::json`].

/// How deep lists may nest.
const MAX_DEPTH: usize = 64;

/// A value. A tuple is a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    /// Its text, which is a JSON number, `NaN`, `Infinity` or `-Infinity`.
    Number(String),
    Text(Vec<u8>),
    List(Vec<Self>),
    Object(Vec<(Vec<u8>, Self)>),
}

/// What is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Json,
    Python,
}

/// The value that `text` is in JSON.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_json(text: &[u8]) -> Result<Literal, &'static str> {
    parse(text, Dialect::Json)
}

/// The value that `text` is in JSON or as a Python literal: with tuples, single quotes, `True`, `False` and `None`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_python(text: &[u8]) -> Result<Literal, &'static str> {
    parse(text, Dialect::Python)
}

impl Literal {
    /// As a whole number that is not negative.
    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// As text that is UTF-8.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => std::str::from_utf8(text).ok(),
            _ => None,
        }
    }

    /// The value of a key of an object.
    pub(super) fn get(&self, key: &[u8]) -> Option<&Self> {
        match self {
            Self::Object(entries) => entries
                .iter()
                .find(|entry| entry.0 == key)
                .map(|entry| &entry.1),
            _ => None,
        }
    }
}

fn parse(text: &[u8], dialect: Dialect) -> Result<Literal, &'static str> {
    let rest = std::str::from_utf8(text).map_err(|_| "it is not UTF-8")?;
    let mut parser = Parser { rest, dialect };
    let value = parser.value(MAX_DEPTH)?;
    parser.blanks();
    if parser.rest.is_empty() {
        Ok(value)
    } else {
        Err("there is something behind its end")
    }
}

struct Parser<'t> {
    rest: &'t str,
    dialect: Dialect,
}

impl Parser<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    /// Takes `token`, if it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.blanks();
        let rest = self.rest.strip_prefix(token);
        if let Some(rest) = rest {
            self.rest = rest;
        }
        rest.is_some()
    }

    fn value(&mut self, depth: usize) -> Result<Literal, &'static str> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        let is_python = self.dialect == Dialect::Python;
        if self.take("[") {
            return self.list("]", depth).map(|(items, _)| Literal::List(items));
        }
        if is_python && self.take("(") {
            let (mut items, is_tuple) = self.list(")", depth)?;
            // Parentheses around one value are only that.
            return Ok(match items.len() {
                1 if !is_tuple => items.remove(0),
                _ => Literal::List(items),
            });
        }
        if self.take("{") {
            return self.object(depth);
        }
        if self.take("\"") {
            return self.string('"').map(Literal::Text);
        }
        if is_python && self.take("'") {
            return self.string('\'').map(Literal::Text);
        }
        self.word(is_python)
    }

    /// The values up to `end`, and whether a comma came behind the last one.
    fn list(&mut self, end: &str, depth: usize) -> Result<(Vec<Literal>, bool), &'static str> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            if (items.is_empty() || !comma || self.dialect == Dialect::Python) && self.take(end) {
                return Ok((items, comma));
            }
            if !comma && !items.is_empty() {
                return Err("a comma or a bracket is missing");
            }
            items.push(self.value(depth)?);
            comma = self.take(",");
        }
    }

    fn object(&mut self, depth: usize) -> Result<Literal, &'static str> {
        let mut entries = Vec::new();
        let mut comma = false;
        loop {
            let may_end = entries.is_empty() || !comma || self.dialect == Dialect::Python;
            if may_end && self.take("}") {
                return Ok(Literal::Object(entries));
            }
            if !comma && !entries.is_empty() {
                return Err("a comma or a bracket is missing");
            }
            let Literal::Text(key) = self.value(depth)? else {
                return Err("a key is not a string");
            };
            if !self.take(":") {
                return Err("a colon is missing");
            }
            entries.push((key, self.value(depth)?));
            comma = self.take(",");
        }
    }

    /// The string whose first quote was taken.
    fn string(&mut self, quote: char) -> Result<Vec<u8>, &'static str> {
        let mut text = Vec::new();
        let mut characters = self.rest.chars();
        loop {
            match characters.next().ok_or("a quote is missing")? {
                '\\' => escaped(&mut characters, self.dialect, &mut text)?,
                character if character == quote => break,
                character if u32::from(character) < 0x20 => {
                    return Err("a control character in a string");
                }
                character => push(character, &mut text),
            }
        }
        self.rest = characters.as_str();
        Ok(text)
    }

    /// A number, or one of the words that stand for a value.
    fn word(&mut self, is_python: bool) -> Result<Literal, &'static str> {
        self.blanks();
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let value = match word {
            "null" => Literal::Null,
            "true" => Literal::Bool(true),
            "false" => Literal::Bool(false),
            "None" if is_python => Literal::Null,
            "True" if is_python => Literal::Bool(true),
            "False" if is_python => Literal::Bool(false),
            "NaN" | "Infinity" | "-Infinity" => Literal::Number(word.to_owned()),
            _ if is_number(word) => Literal::Number(word.to_owned()),
            _ if is_python => return Err("it is neither JSON nor a Python literal"),
            _ => return Err("it is not JSON"),
        };
        self.rest = rest;
        Ok(value)
    }
}

/// What follows a backslash.
fn escaped(
    characters: &mut std::str::Chars<'_>,
    dialect: Dialect,
    text: &mut Vec<u8>,
) -> Result<(), &'static str> {
    const UNKNOWN: &str = "an unknown escape in a string";
    let character = match characters.next().ok_or("a quote is missing")? {
        same @ ('"' | '\'' | '\\' | '/') => same,
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        // As Python's `repr` writes what cannot be printed.
        'x' if dialect == Dialect::Python => code(characters, 2).ok_or(UNKNOWN)?,
        'U' if dialect == Dialect::Python => code(characters, 8).ok_or(UNKNOWN)?,
        'u' => {
            let mut unit =
                || (0..4).try_fold(0u32, |n, _| Some(n * 16 + characters.next()?.to_digit(16)?));
            match unit().ok_or(UNKNOWN)? {
                high @ 0xd800..=0xdbff => {
                    let is_pair = characters.next() == Some('\\') && characters.next() == Some('u');
                    let mut unit = || {
                        (0..4)
                            .try_fold(0u32, |n, _| Some(n * 16 + characters.next()?.to_digit(16)?))
                    };
                    let low = if is_pair { unit() } else { None };
                    let low = low
                        .filter(|low| (0xdc00..=0xdfff).contains(low))
                        .ok_or(UNKNOWN)?;
                    char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
                        .ok_or(UNKNOWN)?
                }
                byte @ 0xdc80..=0xdcff => {
                    text.push(u8::try_from(byte - 0xdc00).map_err(|_| UNKNOWN)?);
                    return Ok(());
                }
                unit => char::from_u32(unit).ok_or(UNKNOWN)?,
            }
        }
        _ => return Err(UNKNOWN),
    };
    push(character, text);
    Ok(())
}

/// The character whose number is in so many hexadecimal digits.
fn code(characters: &mut std::str::Chars<'_>, digits: usize) -> Option<char> {
    let number = (0..digits).try_fold(0u32, |n, _| {
        n.checked_mul(16)?
            .checked_add(characters.next()?.to_digit(16)?)
    });
    char::from_u32(number?)
}

fn push(character: char, text: &mut Vec<u8>) {
    text.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
}

/// Whether `word` is a number as JSON writes it (RFC 8259, section 6).
fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let word = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match word.find(['e', 'E']) {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Literal {
        Literal::Number(text.to_owned())
    }

    fn text(text: &str) -> Literal {
        Literal::Text(text.as_bytes().to_vec())
    }

    fn list<const N: usize>(items: [Literal; N]) -> Literal {
        Literal::List(items.into())
    }

    #[test]
    fn json_is_read() {
        for (given, value) in [
            ("[1, 2]", list([number("1"), number("2")])),
            (" -1.50e+3 ", number("-1.50e+3")),
            ("18446744073709551616", number("18446744073709551616")),
            (
                "[NaN,-Infinity]",
                list([number("NaN"), number("-Infinity")]),
            ),
            ("[]", list([])),
            ("true", Literal::Bool(true)),
            ("null", Literal::Null),
            (
                r#""a\"\\\n\u00e9\ud83d\ude00""#,
                text("a\"\\\n\u{e9}\u{1f600}"),
            ),
            (r#""\udc80\udcff""#, Literal::Text(vec![0x80, 0xff])),
            (
                r#"{"a": [1]}"#,
                Literal::Object(vec![(b"a".to_vec(), list([number("1")]))]),
            ),
            ("{}", Literal::Object(Vec::new())),
        ] {
            assert_eq!(parse_json(given.as_bytes()), Ok(value.clone()), "{given}");
            assert_eq!(parse_python(given.as_bytes()), Ok(value), "{given}");
        }
    }

    #[test]
    fn python_is_read() {
        for (given, value) in [
            ("(1, 2)", list([number("1"), number("2")])),
            ("(1,)", list([number("1")])),
            ("(1)", number("1")),
            ("()", list([])),
            ("'<f8'", text("<f8")),
            (r"'\x01\xfc\U0001f600'", text("\u{1}\u{fc}\u{1f600}")),
            ("[('a', None), ]", list([list([text("a"), Literal::Null])])),
            (
                "{'a': True,}",
                Literal::Object(vec![(b"a".to_vec(), Literal::Bool(true))]),
            ),
        ] {
            assert!(parse_json(given.as_bytes()).is_err(), "{given}");
            assert_eq!(parse_python(given.as_bytes()), Ok(value), "{given}");
        }
    }

    #[test]
    fn what_is_neither_is_told() {
        for given in [
            "",
            "[1",
            "[1 2]",
            "(1, 2) 3",
            "'a",
            "\"a",
            "{1: 2}",
            "{'a' 1}",
            "<f8",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "- 1",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\u0041\"",
            "[,]",
            "[,1]",
            "nan",
            "\"\u{1}\"",
        ] {
            assert!(parse_python(given.as_bytes()).is_err(), "{given}");
            assert!(parse_json(given.as_bytes()).is_err(), "{given}");
        }
        assert!(parse_json(b"\xff").is_err());
        assert!(parse_json(b"[1,]").is_err());
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(parse_json(deep.as_bytes()), Err("it is nested too deeply"));
    }
}

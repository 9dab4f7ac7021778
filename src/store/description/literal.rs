//! Values in JSON or as Python prints them: tuples, single quotes, `True`, `False` and `None` too.

use serde_json::{Map, Number, Value};

/// How deep lists may nest.
const MAX_DEPTH: usize = 64;

/// The value that `text` stands for. A tuple is a list.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &[u8]) -> Result<Value, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "it is not UTF-8")?;
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut parser = Parser { rest: text };
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
}

impl Parser<'_> {
    fn blanks(&mut self) {
        self.rest = self.rest.trim_start();
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

    fn value(&mut self, depth: usize) -> Result<Value, &'static str> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        if self.take("[") {
            return self.list("]", depth).map(|(items, _)| Value::Array(items));
        }
        if self.take("(") {
            let (mut items, is_tuple) = self.list(")", depth)?;
            // Parentheses around one value are only that.
            return Ok(match items.len() {
                1 if !is_tuple => items.remove(0),
                _ => Value::Array(items),
            });
        }
        if self.take("{") {
            return self.dictionary(depth);
        }
        for quote in ["'", "\""] {
            if self.take(quote) {
                return self.string(quote).map(Value::String);
            }
        }
        for (word, value) in [
            ("True", Value::Bool(true)),
            ("False", Value::Bool(false)),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("None", Value::Null),
            ("null", Value::Null),
        ] {
            if self.take(word) {
                return Ok(value);
            }
        }
        self.number().map(Value::Number)
    }

    /// The values up to `end`, and whether a comma came behind the last one.
    fn list(&mut self, end: &str, depth: usize) -> Result<(Vec<Value>, bool), &'static str> {
        let mut items = Vec::new();
        let mut comma = true;
        loop {
            if self.take(end) {
                return Ok((items, comma));
            }
            if !comma {
                return Err("a comma or a bracket is missing");
            }
            items.push(self.value(depth)?);
            comma = self.take(",");
        }
    }

    fn dictionary(&mut self, depth: usize) -> Result<Value, &'static str> {
        let mut map = Map::new();
        let mut comma = true;
        loop {
            if self.take("}") {
                return Ok(Value::Object(map));
            }
            if !comma {
                return Err("a comma or a bracket is missing");
            }
            let Value::String(key) = self.value(depth)? else {
                return Err("a key is not a string");
            };
            if !self.take(":") {
                return Err("a colon is missing");
            }
            let value = self.value(depth)?;
            map.insert(key, value);
            comma = self.take(",");
        }
    }

    fn string(&mut self, quote: &str) -> Result<String, &'static str> {
        let end = self.rest.find(quote).ok_or("a quote is missing")?;
        let text = &self.rest[..end];
        if text.contains('\\') {
            return Err("write strings with a backslash as JSON");
        }
        self.rest = &self.rest[end + quote.len()..];
        Ok(text.to_owned())
    }

    fn number(&mut self) -> Result<Number, &'static str> {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c))
            .unwrap_or(self.rest.len());
        let (text, rest) = self.rest.split_at(end);
        let number = text
            .parse()
            .map_err(|_| "it is neither JSON nor a Python literal")?;
        self.rest = rest;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn python_and_json_are_read() {
        for (text, value) in [
            ("[1, 2]", json!([1, 2])),
            ("(1, 2)", json!([1, 2])),
            ("(1,)", json!([1])),
            ("(1)", json!(1)),
            ("()", json!([])),
            ("'<f8'", json!("<f8")),
            (
                " [ ('a', \"<i4\", (2, 3)), ] ",
                json!([["a", "<i4", [2, 3]]]),
            ),
            (
                "{'a': None, 'b': [True, -1.5]}",
                json!({"a": null, "b": [true, -1.5]}),
            ),
            ("\"\\u00e9\"", json!("\u{e9}")),
        ] {
            assert_eq!(parse(text.as_bytes()), Ok(value), "{text}");
        }
    }

    #[test]
    fn what_is_neither_is_told() {
        for text in [
            "", "[1", "[1 2]", "(1, 2) 3", "'a", "{1: 2}", "{'a' 1}", "<f8", "[\u{ff}]",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse(b"\xff").is_err());
        let deep = format!("{}{}", "(".repeat(10_000), ")".repeat(10_000));
        assert_eq!(parse(deep.as_bytes()), Err("it is nested too deeply"));
    }
}

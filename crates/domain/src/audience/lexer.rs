//! Text to tokens.

use jiff::civil::Date;

use super::{
    ParseError,
    number::{Decimal, MAX_FRACTION_DIGITS, MAX_WHOLE_DIGITS},
};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name or keyword. Segments are what dots separate; each says whether it was in backquotes.
    Word(Vec<Segment>),
    Text(String),
    Number(Decimal),
    Date(Date),
    /// One of `= != < <= > >= ( ) ,`.
    Sign(&'static str),
    End,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Segment {
    pub text: String,
    pub quoted: bool,
}

/// A token and where it begins: the column counts characters from 1.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub token: Token,
    pub column: usize,
}

/// Starts a name.
fn starts_word(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

/// Goes on in a name. A hyphen does: there is no subtraction, and names have them.
fn in_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}

/// Whether a name can stand without backquotes: one segment, not checked against keywords.
pub(super) fn is_bare(segment: &str) -> bool {
    !segment.is_empty() && segment.chars().all(in_word)
}

pub(super) fn is_bare_start(segment: &str) -> bool {
    segment.starts_with(starts_word) && is_bare(segment)
}

pub(super) fn lex(text: &str) -> Result<Vec<Placed>, ParseError> {
    let mut lexer = Lexer {
        characters: text.chars().collect(),
        at: 0,
    };
    let mut tokens = Vec::new();
    loop {
        let placed = lexer.next()?;
        let end = placed.token == Token::End;
        tokens.push(placed);
        if end {
            return Ok(tokens);
        }
    }
}

struct Lexer {
    characters: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.characters.get(self.at + ahead).copied()
    }

    fn error(&self, at: usize, message: impl Into<String>) -> ParseError {
        ParseError {
            column: at + 1,
            message: message.into(),
        }
    }

    fn next(&mut self) -> Result<Placed, ParseError> {
        while self.peek(0).is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        let start = self.at;
        let token = match self.peek(0) {
            None => Token::End,
            Some('"' | '\'') => Token::Text(self.text()?),
            Some(c) if starts_word(c) || c == '`' => self.word()?,
            Some(c) if c.is_ascii_digit() || (c == '-' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) => {
                self.number()?
            }
            Some(c) => self.sign(c)?,
        };
        Ok(Placed {
            token,
            column: start + 1,
        })
    }

    fn sign(&mut self, first: char) -> Result<Token, ParseError> {
        let (sign, length) = match (first, self.peek(1)) {
            ('=', Some('=')) => ("=", 2),
            ('=', _) => ("=", 1),
            ('!', Some('=')) | ('<', Some('>')) => ("!=", 2),
            ('≠', _) => ("!=", 1),
            ('<', Some('=')) => ("<=", 2),
            ('≤', _) => ("<=", 1),
            ('<', _) => ("<", 1),
            ('>', Some('=')) => (">=", 2),
            ('≥', _) => (">=", 1),
            ('>', _) => (">", 1),
            ('(', _) => ("(", 1),
            (')', _) => (")", 1),
            (',', _) => (",", 1),
            ('!', _) => return Err(self.error(self.at, "`!` alone means nothing here: expected `not` or `!=`")),
            ('&', _) => return Err(self.error(self.at, "expected `and` in place of `&`")),
            ('|', _) => return Err(self.error(self.at, "expected `or` in place of `|`")),
            ('“' | '”' | '«' | '»' | '‘' | '’', _) => {
                return Err(self.error(self.at, "expected straight quotes (\" or ') around a text"));
            }
            _ => {
                return Err(self.error(
                    self.at,
                    "this character means nothing here: expected a name, a text in quotes, a number, an operator or a parenthesis",
                ));
            }
        };
        self.at += length;
        Ok(Token::Sign(sign))
    }

    /// A text in quotes; `\` escapes.
    fn text(&mut self) -> Result<String, ParseError> {
        let start = self.at;
        let quote = self.peek(0);
        self.at += 1;
        let mut text = String::new();
        loop {
            let at = self.at;
            let Some(character) = self.peek(0) else {
                return Err(self.error(start, "this text has no end: expected its closing quote"));
            };
            self.at += 1;
            match character {
                c if Some(c) == quote => return Ok(text),
                '\\' => text.push(self.escape(at)?),
                '\0' => return Err(self.error(at, "a NUL character cannot stand in a text")),
                c => text.push(c),
            }
        }
    }

    fn escape(&mut self, start: usize) -> Result<char, ParseError> {
        let expected = "expected \\\\, \\\", \\', \\n, \\t, \\r or \\u{HEX}";
        let character = self.peek(0);
        self.at += 1;
        match character {
            Some(c @ ('\\' | '"' | '\'')) => Ok(c),
            Some('n') => Ok('\n'),
            Some('t') => Ok('\t'),
            Some('r') => Ok('\r'),
            Some('u') if self.peek(0) == Some('{') => {
                self.at += 1;
                let mut code = 0_u32;
                let mut digits = 0;
                while let Some(digit) = self.peek(0).and_then(|c| c.to_digit(16)) {
                    code = code * 16 + digit;
                    digits += 1;
                    self.at += 1;
                    if digits > 6 {
                        return Err(self.error(start, expected));
                    }
                }
                let closed = self.peek(0) == Some('}');
                self.at += 1;
                match char::from_u32(code) {
                    Some(c) if closed && digits > 0 && c != '\0' => Ok(c),
                    _ => Err(self.error(start, expected)),
                }
            }
            _ => Err(self.error(start, expected)),
        }
    }

    fn word(&mut self) -> Result<Token, ParseError> {
        let mut segments = vec![self.segment()?];
        while self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| in_word(c) || c == '`') {
            self.at += 1;
            segments.push(self.segment()?);
        }
        Ok(Token::Word(segments))
    }

    fn segment(&mut self) -> Result<Segment, ParseError> {
        let start = self.at;
        if self.peek(0) != Some('`') {
            while self.peek(0).is_some_and(in_word) {
                self.at += 1;
            }
            let text = self.characters[start..self.at].iter().collect();
            return Ok(Segment { text, quoted: false });
        }
        self.at += 1;
        while let Some(character) = self.peek(0) {
            self.at += 1;
            match character {
                '`' if self.at - start > 2 => {
                    let text = self.characters[start + 1..self.at - 1].iter().collect();
                    return Ok(Segment { text, quoted: true });
                }
                '`' => return Err(self.error(start, "expected a name between the backquotes")),
                c if c.is_control() => {
                    return Err(self.error(self.at - 1, "a control character cannot stand in a name"));
                }
                _ => {}
            }
        }
        Err(self.error(start, "this name has no end: expected its closing backquote"))
    }

    /// A number, or a date `YYYY-MM-DD`.
    fn number(&mut self) -> Result<Token, ParseError> {
        let start = self.at;
        if let Some(date) = self.date()? {
            return Ok(Token::Date(date));
        }
        if self.peek(0) == Some('-') {
            self.at += 1;
        }
        while self.peek(0).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
            while self.peek(0).is_some_and(|c| c.is_ascii_digit()) {
                self.at += 1;
            }
        }
        let text: String = self.characters[start..self.at].iter().collect();
        Decimal::from_text(&text).map(Token::Number).ok_or_else(|| {
            self.error(
                start,
                format!(
                    "expected a number of up to {MAX_WHOLE_DIGITS} digits before the point and {MAX_FRACTION_DIGITS} after it"
                ),
            )
        })
    }

    fn date(&mut self) -> Result<Option<Date>, ParseError> {
        let shape = "dddd-dd-dd";
        let fits = shape.chars().enumerate().all(|(place, expected)| {
            self.peek(place)
                .is_some_and(|c| if expected == 'd' { c.is_ascii_digit() } else { c == '-' })
        });
        if !fits {
            return Ok(None);
        }
        let text: String = self.characters[self.at..self.at + shape.len()].iter().collect();
        let date = read_date(&text).ok_or_else(|| self.error(self.at, "there is no such date: expected YYYY-MM-DD"))?;
        self.at += shape.len();
        Ok(Some(date))
    }
}

/// `YYYY-MM-DD` of the years 1 to 9999.
pub(crate) fn read_date(text: &str) -> Option<Date> {
    let bytes = text.as_bytes();
    let shaped = bytes.len() == 10 && bytes[4] == b'-' && bytes[7] == b'-' && text.is_ascii();
    if !shaped
        || !bytes
            .iter()
            .enumerate()
            .all(|(place, byte)| place == 4 || place == 7 || byte.is_ascii_digit())
    {
        return None;
    }
    let date = Date::new(
        text[..4].parse().ok()?,
        text[5..7].parse().ok()?,
        text[8..].parse().ok()?,
    )
    .ok()?;
    (date.year() >= 1).then_some(date)
}

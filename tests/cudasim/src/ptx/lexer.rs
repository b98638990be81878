//! PTX text into tokens that borrow from it.

use super::PtxError;

/// One token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A name, directive, register or mnemonic with its suffixes: `$L1`, `.reg`, `%tid.x`, `ld.global.u32`.
    Word(&'a str),
    /// A number as it is written, without its sign.
    Number(&'a str),
    /// A quoted string.
    Text,
    /// Anything else, one character long.
    Mark(char),
}

/// A cursor over PTX text.
#[derive(Clone)]
pub struct Lexer<'a> {
    source: &'a str,
    position: usize,
}

impl<'a> Lexer<'a> {
    /// A cursor at the start of `source`.
    pub fn new(source: &'a str) -> Self {
        Self { source, position: 0 }
    }

    /// Offset of the next token, or of the space before it.
    pub fn at(&self) -> usize {
        self.position
    }

    /// The next token without taking it.
    pub fn peek(&self) -> Option<Token<'a>> {
        self.clone().next()
    }

    /// Takes the next token if it is `mark`.
    pub fn accept(&mut self, mark: char) -> bool {
        let found = self.peek() == Some(Token::Mark(mark));
        if found {
            self.next();
        }
        found
    }

    /// Takes the next token, which must be `mark`.
    pub fn expect(&mut self, mark: char) -> Result<(), PtxError> {
        if self.accept(mark) { Ok(()) } else { Err(self.unexpected(&format!("`{mark}`"))) }
    }

    /// Takes the next token, which must be a word.
    pub fn word(&mut self) -> Result<&'a str, PtxError> {
        match self.peek() {
            Some(Token::Word(word)) => {
                self.next();
                Ok(word)
            }
            _ => Err(self.unexpected("a name")),
        }
    }

    /// Takes the next token, which must be a number that fits `usize`.
    pub fn count(&mut self) -> Result<usize, PtxError> {
        match self.peek() {
            Some(Token::Number(number)) => {
                self.next();
                super::number::integer(number)
                    .and_then(|value| usize::try_from(value).ok())
                    .ok_or_else(|| PtxError::Number { text: number.to_owned() })
            }
            _ => Err(self.unexpected("a number")),
        }
    }

    /// Skips to just after the brace that closes the one taken last.
    pub fn skip_braces(&mut self) -> Result<(), PtxError> {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(Token::Mark('{')) => depth += 1,
                Some(Token::Mark('}')) => depth -= 1,
                Some(_) => {}
                None => return Err(self.unexpected("`}`")),
            }
        }
        Ok(())
    }

    /// The error for a token other than `wanted`.
    pub fn unexpected(&self, wanted: &str) -> PtxError {
        let line = self.source[..self.position].matches('\n').count() + 1;
        PtxError::Unexpected { line, wanted: wanted.to_owned(), found: format!("{:?}", self.peek()) }
    }

    fn skip_space(&mut self) {
        let bytes = self.source.as_bytes();
        loop {
            while bytes.get(self.position).is_some_and(u8::is_ascii_whitespace) {
                self.position += 1;
            }
            let rest = &self.source[self.position..];
            let comment = if rest.starts_with("//") {
                rest.find('\n')
            } else if rest.starts_with("/*") {
                rest.find("*/").map(|end| end + 2)
            } else {
                return;
            };
            self.position += comment.unwrap_or(rest.len());
        }
    }

    fn run(&mut self, keep: impl Fn(&[u8], usize) -> bool) -> &'a str {
        let start = self.position;
        let bytes = self.source.as_bytes();
        while self.position < bytes.len() && keep(bytes, self.position) {
            self.position += 1;
        }
        &self.source[start..self.position]
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_space();
        let first = *self.source.as_bytes().get(self.position)?;
        Some(match first {
            b'0'..=b'9' => Token::Number(self.run(|bytes, at| bytes[at].is_ascii_alphanumeric() || bytes[at] == b'.')),
            b'A'..=b'Z' | b'a'..=b'z' | b'_' | b'$' | b'%' | b'.' => Token::Word(self.run(is_word)),
            b'"' => {
                self.position += 1;
                self.run(|bytes, at| bytes[at] != b'"');
                self.position += 1;
                Token::Text
            }
            _ => {
                let mark = self.source[self.position..].chars().next()?;
                self.position += mark.len_utf8();
                Token::Mark(mark)
            }
        })
    }
}

/// True if the byte belongs to a word; `::` does (`shared::cta`), a single `:` ends a label.
fn is_word(bytes: &[u8], at: usize) -> bool {
    match bytes[at] {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'$' | b'%' | b'.' => true,
        b':' => bytes.get(at + 1) == Some(&b':') || bytes[at - 1] == b':',
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instruction_splits_into_mnemonic_registers_and_marks() {
        let tokens: Vec<_> = Lexer::new("@%p1 ld.shared::cta.u32 %r1, [%rd2+-4]; // note").collect();
        assert_eq!(
            tokens,
            [
                Token::Mark('@'),
                Token::Word("%p1"),
                Token::Word("ld.shared::cta.u32"),
                Token::Word("%r1"),
                Token::Mark(','),
                Token::Mark('['),
                Token::Word("%rd2"),
                Token::Mark('+'),
                Token::Mark('-'),
                Token::Number("4"),
                Token::Mark(']'),
                Token::Mark(';'),
            ]
        );
    }

    #[test]
    fn a_label_ends_before_its_colon() {
        assert_eq!(Lexer::new("$L__BB0_1: ret;").next(), Some(Token::Word("$L__BB0_1")));
    }

    #[test]
    fn comments_and_strings_hide_braces() {
        let mut lexer = Lexer::new("{ /* } */ \"}\" // }\n } after");
        lexer.expect('{').unwrap();
        lexer.skip_braces().unwrap();
        assert_eq!(lexer.next(), Some(Token::Word("after")));
    }
}

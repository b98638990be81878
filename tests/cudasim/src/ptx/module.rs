//! The outline of a PTX text: its functions and variables.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use super::PtxError;
use super::lexer::{Lexer, Token};
use super::number;
use super::types::{Space, Type};

/// A parsed PTX text.
#[derive(Debug)]
pub struct Module {
    /// The text itself; functions refer to ranges of it.
    pub source: Arc<str>,
    /// Lowest compute capability that the text is for, such as 80.
    pub target: u32,
    /// Entry points and device functions by name.
    pub functions: HashMap<String, Function>,
    /// Variables at module level, in order.
    pub variables: Vec<Variable>,
}

/// An entry point or a device function.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    /// True if a host can launch it.
    pub is_entry: bool,
    pub parameters: Vec<Declaration>,
    pub results: Vec<Declaration>,
    /// Range of the body in the text, without the braces.
    pub body: Range<usize>,
    /// The product of `.maxntid` or `.reqntid`.
    pub max_threads: Option<u32>,
}

/// A named piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    pub name: String,
    pub ty: Type,
    pub align: usize,
    /// Size in bytes; zero for an array of unknown length.
    pub bytes: usize,
}

/// A variable at module level.
#[derive(Clone, Debug)]
pub struct Variable {
    pub declaration: Declaration,
    pub space: Space,
    /// Its first bytes; the rest of the variable is zero.
    pub initial: Vec<u8>,
}

impl Module {
    /// Reads the outline of `source`.
    ///
    /// # Errors
    ///
    /// A text that breaks the grammar outside of function bodies.
    pub fn parse(source: &str) -> Result<Self, PtxError> {
        let mut module =
            Self { source: Arc::from(source), target: 0, functions: HashMap::new(), variables: Vec::new() };
        let mut lexer = Lexer::new(source);
        while let Some(token) = lexer.peek() {
            match token {
                Token::Mark(';') => {
                    lexer.next();
                }
                Token::Word(".version" | ".address_size") => {
                    lexer.nth(1);
                }
                Token::Word(".target") => module.parse_target(&mut lexer)?,
                Token::Word(".file") => skip_file(&mut lexer),
                Token::Word(".section") => {
                    while lexer.next().is_some_and(|token| token != Token::Mark('{')) {}
                    lexer.skip_braces()?;
                }
                Token::Word(_) => module.parse_item(&mut lexer)?,
                _ => return Err(lexer.unexpected("a directive")),
            }
        }
        Ok(module)
    }

    /// Names of the functions that a host can launch.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.functions.values().filter(|function| function.is_entry).map(|function| function.name.as_str())
    }

    fn parse_target(&mut self, lexer: &mut Lexer) -> Result<(), PtxError> {
        lexer.next();
        loop {
            let name = lexer.word()?;
            if let Some(digits) = name.strip_prefix("sm_") {
                let digits = digits.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
                self.target = digits.parse().map_err(|_| PtxError::Number { text: name.to_owned() })?;
            }
            if !lexer.accept(',') {
                return Ok(());
            }
        }
    }

    /// Parses a function or a variable, with the linkage directives before it.
    fn parse_item(&mut self, lexer: &mut Lexer) -> Result<(), PtxError> {
        let mut space = None;
        while let Some(Token::Word(word)) = lexer.peek() {
            match word {
                ".extern" | ".visible" | ".weak" | ".common" => {
                    lexer.next();
                }
                ".entry" | ".func" => return self.parse_function(lexer),
                ".alias" | ".pragma" => {
                    while lexer.next().is_some_and(|token| token != Token::Mark(';')) {}
                    return Ok(());
                }
                ".global" | ".shared" | ".const" | ".local" => {
                    lexer.next();
                    space = Space::parse(&word[1..]);
                    break;
                }
                _ => break,
            }
        }
        let space = space.ok_or_else(|| lexer.unexpected("a function or a variable"))?;
        let declarations = declarations(lexer)?;
        let mut initial = Vec::new();
        if lexer.accept('=') {
            parse_initial(lexer, declarations[0].ty, &mut initial)?;
        }
        lexer.expect(';')?;
        for declaration in declarations {
            self.variables.push(Variable { declaration, space, initial: initial.clone() });
        }
        Ok(())
    }

    fn parse_function(&mut self, lexer: &mut Lexer) -> Result<(), PtxError> {
        let is_entry = lexer.word()? == ".entry";
        let results = if lexer.peek() == Some(Token::Mark('(')) { parameters(lexer)? } else { Vec::new() };
        let name = lexer.word()?.to_owned();
        let parameters = if lexer.peek() == Some(Token::Mark('(')) { parameters(lexer)? } else { Vec::new() };
        let mut max_threads = None;
        loop {
            match lexer.next() {
                Some(Token::Word(".maxntid" | ".reqntid")) => {
                    let mut product = lexer.count()?;
                    while lexer.accept(',') {
                        product *= lexer.count()?;
                    }
                    max_threads = u32::try_from(product).ok();
                }
                // A prototype, whose definition is elsewhere in the text or in the runtime.
                Some(Token::Mark(';')) => return Ok(()),
                Some(Token::Mark('{')) => break,
                Some(_) => {}
                None => return Err(lexer.unexpected("the body of a function")),
            }
        }
        let start = lexer.at();
        lexer.skip_braces()?;
        let body = start..lexer.at() - 1;
        self.functions.insert(name.clone(), Function { name, is_entry, parameters, results, body, max_threads });
        Ok(())
    }
}

/// Skips `.file 1 "name", 123, 456`.
fn skip_file(lexer: &mut Lexer) {
    lexer.nth(2);
    while lexer.accept(',') {
        lexer.next();
    }
}

fn parameters(lexer: &mut Lexer) -> Result<Vec<Declaration>, PtxError> {
    lexer.expect('(')?;
    let mut list = Vec::new();
    while !lexer.accept(')') {
        // `.param` or `.reg`
        lexer.word()?;
        list.extend(declarations(lexer)?.into_iter().take(1));
        lexer.accept(',');
    }
    Ok(list)
}

/// Parses the part after the state space: attributes, type, and names with their array lengths.
///
/// A comma followed by a directive ends the list, as it does inside of a parameter list.
pub fn declarations(lexer: &mut Lexer) -> Result<Vec<Declaration>, PtxError> {
    let (mut align, mut ty, mut elements) = (0, None, 1);
    while let Some(Token::Word(word)) = lexer.peek() {
        let Some(directive) = word.strip_prefix('.') else { break };
        lexer.next();
        match directive {
            "align" => align = lexer.count()?,
            "v2" => elements = 2,
            "v4" => elements = 4,
            _ => ty = Type::parse(directive).or(ty),
        }
    }
    let ty = ty.ok_or_else(|| lexer.unexpected("a type"))?;
    let mut list = Vec::new();
    loop {
        let name = lexer.word()?.to_owned();
        let mut bytes = ty.bytes() * elements;
        while lexer.accept('[') {
            bytes *= if lexer.peek() == Some(Token::Mark(']')) { 0 } else { lexer.count()? };
            lexer.expect(']')?;
        }
        let align = if align == 0 { ty.bytes() * elements } else { align };
        list.push(Declaration { name, ty, align: align.max(1), bytes });
        let mut ahead = lexer.clone();
        let continues = ahead.accept(',') && matches!(ahead.peek(), Some(Token::Word(word)) if !word.starts_with('.'));
        if !continues {
            return Ok(list);
        }
        lexer.accept(',');
    }
}

/// The value after `=`: a literal, or a list of lists in braces.
fn parse_initial(lexer: &mut Lexer, ty: Type, bytes: &mut Vec<u8>) -> Result<(), PtxError> {
    if lexer.accept('{') {
        while !lexer.accept('}') {
            parse_initial(lexer, ty, bytes)?;
            lexer.accept(',');
        }
        return Ok(());
    }
    let negative = lexer.accept('-');
    match lexer.next() {
        Some(Token::Number(text)) => {
            let value =
                number::literal(text, negative, ty).ok_or_else(|| PtxError::Number { text: text.to_owned() })?;
            bytes.extend_from_slice(&value.to_le_bytes()[..ty.bytes()]);
            Ok(())
        }
        Some(Token::Word(name)) => {
            Err(PtxError::Unsupported { what: format!("an address (`{name}`) as a variable's initial value") })
        }
        _ => Err(lexer.unexpected("a literal")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
        .version 8.0
        .target sm_80, debug
        .address_size 64
        .extern .shared .align 16 .b8 tile[];
        .const .align 4 .f32 weights[3] = {0f3F800000, 0f40000000};
        .func (.param .b32 out) twice(.param .b32 in) { ret; }
        .visible .entry scale(
            .param .u64 .ptr .align 1 scale_param_0,
            .param .align 8 .b8 scale_param_1[24]
        )
        .maxntid 64, 2, 1
        { .reg .b32 %r<3>; { ret; } }
        .visible .entry empty() { ret; }
        .file 1 \"scale.cu\"
        .section .debug_str { .b8 0, 1 }
    ";

    #[test]
    fn functions_are_found_with_their_parameters_and_limits() {
        let module = Module::parse(TEXT).unwrap();
        assert_eq!(module.target, 80);
        let scale = &module.functions["scale"];
        assert_eq!(scale.max_threads, Some(128));
        assert_eq!(scale.parameters[1].bytes, 24);
        assert_eq!(scale.parameters[1].align, 8);
        assert_eq!(module.source[scale.body.clone()].trim(), ".reg .b32 %r<3>; { ret; }");
        assert_eq!(module.functions["twice"].results[0].name, "out");
        let mut entries: Vec<_> = module.entries().collect();
        entries.sort_unstable();
        assert_eq!(entries, ["empty", "scale"]);
    }

    #[test]
    fn variables_keep_their_space_and_initial_values() {
        let module = Module::parse(TEXT).unwrap();
        assert_eq!(module.variables[0].declaration.bytes, 0);
        assert_eq!(module.variables[0].space, Space::Shared);
        assert_eq!(module.variables[1].declaration.bytes, 12);
        assert_eq!(module.variables[1].initial, [0, 0, 0x80, 0x3f, 0, 0, 0, 0x40]);
    }

    #[test]
    fn a_text_cut_short_is_an_error() {
        assert!(Module::parse(".visible .entry cut() { ret;").is_err());
    }
}

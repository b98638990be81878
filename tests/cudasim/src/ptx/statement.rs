//! The body of a function as statements: declarations, labels, instructions with unresolved operands.

use super::PtxError;
use super::lexer::{Lexer, Token};
use super::module::{Declaration, declarations};
use super::types::Space;

/// One statement of a body.
#[derive(Clone, Debug, PartialEq)]
pub enum Statement<'a> {
    /// `{`
    Open,
    /// `}`
    Close,
    /// `name:`
    Label(&'a str),
    /// `.reg .b32 %r<10>;`: names, each with a count where a range is declared.
    Registers(Vec<(&'a str, Option<usize>)>),
    /// `.shared`, `.local` or `.param` memory.
    Memory(Space, Vec<Declaration>),
    /// `.branchtargets a, b;` after a label.
    BranchTargets(Vec<&'a str>),
    /// An instruction.
    Instruction(Call<'a>),
}

/// An instruction with unresolved names.
#[derive(Clone, Debug, PartialEq)]
pub struct Call<'a> {
    /// The guarding predicate, and true if it is negated.
    pub guard: Option<(&'a str, bool)>,
    /// Mnemonic with suffixes.
    pub mnemonic: &'a str,
    pub operands: Vec<Operand<'a>>,
    /// The whole text of the instruction.
    pub text: &'a str,
}

/// An operand with an unresolved name.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// A register, symbol or label with an offset (`symbol+4`).
    Name(&'a str, i64),
    /// A literal, and true if a minus stands before it.
    Number(&'a str, bool),
    /// `!name`
    Not(&'a str),
    /// `a|b`
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// `[base+offset]`
    Address(Box<Operand<'a>>, i64),
    /// `{a, b}` or `(a, b)`
    List(Vec<Operand<'a>>),
}

/// The statements of a body.
pub fn statements(body: &str) -> Result<Vec<Statement<'_>>, PtxError> {
    let mut lexer = Lexer::new(body);
    let mut list = Vec::new();
    while let Some(token) = lexer.peek() {
        match token {
            Token::Mark(';') => {
                lexer.next();
            }
            Token::Mark('{') => {
                lexer.next();
                list.push(Statement::Open);
            }
            Token::Mark('}') => {
                lexer.next();
                list.push(Statement::Close);
            }
            Token::Word(word) if word.starts_with('.') => directive(&mut lexer, word, &mut list)?,
            Token::Word(word) => {
                let mut ahead = lexer.clone();
                ahead.next();
                if ahead.accept(':') {
                    lexer = ahead;
                    list.push(Statement::Label(word));
                } else {
                    list.push(Statement::Instruction(instruction(&mut lexer, body)?));
                }
            }
            Token::Mark('@') => list.push(Statement::Instruction(instruction(&mut lexer, body)?)),
            _ => return Err(lexer.unexpected("a statement")),
        }
    }
    Ok(list)
}

fn directive<'a>(lexer: &mut Lexer<'a>, word: &str, list: &mut Vec<Statement<'a>>) -> Result<(), PtxError> {
    lexer.next();
    match word {
        // Inline assembly of C++ code writes `.reg.b32` without the space.
        _ if word == ".reg" || word.starts_with(".reg.") => {
            // The type: every register is 64 bits wide here.
            while matches!(lexer.peek(), Some(Token::Word(word)) if word.starts_with('.')) {
                lexer.next();
            }
            let mut names = Vec::new();
            loop {
                let name = lexer.word()?;
                let mut count = None;
                if lexer.accept('<') {
                    count = Some(lexer.count()?);
                    lexer.expect('>')?;
                }
                names.push((name, count));
                if !lexer.accept(',') {
                    break;
                }
            }
            list.push(Statement::Registers(names));
        }
        ".shared" | ".local" | ".param" => {
            let space = Space::parse(&word[1..]).ok_or_else(|| lexer.unexpected("a state space"))?;
            list.push(Statement::Memory(space, declarations(lexer)?));
        }
        ".extern" => return Ok(()),
        ".branchtargets" => {
            let mut targets = vec![lexer.word()?];
            while lexer.accept(',') {
                targets.push(lexer.word()?);
            }
            list.push(Statement::BranchTargets(targets));
        }
        ".loc" => {
            // Ends at the end of the line: `.loc 1 20 5` or `, function_name $L, inlined_at 1 20 5`.
            lexer.nth(2);
            while lexer.accept(',') {
                lexer.nth(1);
                while matches!(lexer.peek(), Some(Token::Number(_) | Token::Mark('+'))) {
                    lexer.next();
                }
            }
            return Ok(());
        }
        ".pragma" | ".callprototype" | ".calltargets" => {
            while lexer.peek().is_some_and(|token| token != Token::Mark(';')) {
                lexer.next();
            }
        }
        _ => return Err(PtxError::Unsupported { what: format!("directive `{word}`") }),
    }
    lexer.expect(';')
}

fn instruction<'a>(lexer: &mut Lexer<'a>, body: &'a str) -> Result<Call<'a>, PtxError> {
    let start = lexer.at();
    let mut guard = None;
    if lexer.accept('@') {
        let negated = lexer.accept('!');
        guard = Some((lexer.word()?, negated));
    }
    let mnemonic = lexer.word()?;
    let mut operands = Vec::new();
    while !lexer.accept(';') {
        operands.push(operand(lexer)?);
        if !lexer.accept(',') {
            lexer.expect(';')?;
            break;
        }
    }
    let text = body[start..lexer.at()].trim().trim_end_matches(';');
    Ok(Call { guard, mnemonic, operands, text })
}

fn operand<'a>(lexer: &mut Lexer<'a>) -> Result<Operand<'a>, PtxError> {
    let first = match lexer.next() {
        Some(Token::Word(word)) => Operand::Name(word, offset(lexer)?),
        Some(Token::Number(number)) => Operand::Number(number, false),
        Some(Token::Mark('-')) => match lexer.next() {
            Some(Token::Number(number)) => Operand::Number(number, true),
            _ => return Err(lexer.unexpected("a number")),
        },
        Some(Token::Mark('!')) => Operand::Not(lexer.word()?),
        Some(Token::Mark('[')) => {
            let base = match operand(lexer)? {
                Operand::Name(name, offset) => Operand::Address(Box::new(Operand::Name(name, 0)), offset),
                other => Operand::Address(Box::new(other), 0),
            };
            lexer.expect(']')?;
            return Ok(base);
        }
        Some(Token::Mark(open @ ('{' | '('))) => {
            let close = if open == '{' { '}' } else { ')' };
            let mut list = Vec::new();
            while !lexer.accept(close) {
                list.push(operand(lexer)?);
                lexer.accept(',');
            }
            return Ok(Operand::List(list));
        }
        _ => return Err(lexer.unexpected("an operand")),
    };
    if lexer.accept('|') { Ok(Operand::Pair(Box::new(first), Box::new(operand(lexer)?))) } else { Ok(first) }
}

/// Parses `+4`, `+-4`, `-4` or nothing after a name.
fn offset(lexer: &mut Lexer) -> Result<i64, PtxError> {
    let negative = match lexer.peek() {
        Some(Token::Mark('+')) => {
            lexer.next();
            lexer.accept('-')
        }
        Some(Token::Mark('-')) => {
            lexer.next();
            true
        }
        _ => return Ok(0),
    };
    let value = lexer.count()? as i64;
    Ok(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(text: &str) -> Call<'_> {
        match statements(text).unwrap().pop() {
            Some(Statement::Instruction(call)) => call,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn addresses_guards_and_vectors_are_understood() {
        let load = call("@!%p2 ld.global.v2.f32 {%f1, _}, [%rd1+-16];");
        assert_eq!(load.guard, Some(("%p2", true)));
        assert_eq!(load.operands[0], Operand::List(vec![Operand::Name("%f1", 0), Operand::Name("_", 0)]));
        assert_eq!(load.operands[1], Operand::Address(Box::new(Operand::Name("%rd1", 0)), -16));
        assert_eq!(load.text, "@!%p2 ld.global.v2.f32 {%f1, _}, [%rd1+-16]");
    }

    #[test]
    fn a_shuffle_writes_a_pair() {
        let shuffle = call("shfl.sync.bfly.b32 %r1|%p1, %r2, 16, 31, -1;");
        assert!(matches!(&shuffle.operands[0], Operand::Pair(..)));
        assert_eq!(shuffle.operands[4], Operand::Number("1", true));
    }

    #[test]
    fn labels_scopes_and_declarations_keep_their_order() {
        let list = statements("{ .reg.pred p, %q<3>; $L1: bra.uni $L1; } .shared .align 4 .b8 tile[64];").unwrap();
        assert_eq!(list[0], Statement::Open);
        assert_eq!(list[1], Statement::Registers(vec![("p", None), ("%q", Some(3))]));
        assert_eq!(list[2], Statement::Label("$L1"));
        assert_eq!(list[4], Statement::Close);
        assert!(matches!(&list[5], Statement::Memory(Space::Shared, list) if list[0].bytes == 64));
    }
}

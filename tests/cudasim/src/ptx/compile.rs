//! An entry point from statements to a [`Program`]: scopes, labels, and device functions inlined at their calls.

use std::collections::HashMap;

use super::PtxError;
use super::decode::{Decoder, decode};
use super::module::{Declaration, Function, Module};
use super::operation::{DISCARD, Instruction, Operation, Program, Register, Source};
use super::statement::{Call, Operand, Statement, statements};
use super::types::{Space, Special, Type};

/// The meaning of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symbol {
    Register(Register),
    /// Memory at an address in a space.
    Memory(Space, u64),
    /// The start of dynamic shared memory, known only once all static variables are placed.
    DynamicShared,
}

/// Bound on the depth of calls: deeper ones recurse, and recursion cannot be inlined.
const MAX_CALL_DEPTH: usize = 32;

/// Turns the entry point `name` of `module` into a program.
///
/// `globals` gives the address of each global and constant variable.
///
/// # Errors
///
/// An instruction that is not known, or a name that is not declared.
pub fn compile(module: &Module, name: &str, globals: &HashMap<String, u64>) -> Result<Program, PtxError> {
    let function = module
        .functions
        .get(name)
        .filter(|function| function.is_entry)
        .ok_or_else(|| PtxError::Unknown { name: name.to_owned() })?;
    let mut compiler = Compiler::new(module, globals, name);
    let mut parameters = Vec::new();
    let mut end = 0usize;
    for parameter in &function.parameters {
        end = end.next_multiple_of(parameter.align);
        compiler.declare(&parameter.name, Symbol::Memory(Space::Parameter, end as u64));
        parameters.push((end, parameter.bytes));
        end += parameter.bytes;
    }
    compiler.body(function, None)?;
    compiler.emit(None, Operation::Exit, (0, 0));
    compiler.finish(parameters, end, function.max_threads.unwrap_or(1024))
}

/// State while an entry point is compiled; resolves names for the decoder.
pub struct Compiler<'m> {
    module: &'m Module,
    globals: &'m HashMap<String, u64>,
    kernel: &'m str,
    scopes: Vec<HashMap<String, Symbol>>,
    /// Module-level shared variables that have been placed, because an instruction refers to them.
    shared: HashMap<String, Symbol>,
    instructions: Vec<Instruction>,
    constants: Vec<u64>,
    constant_index: HashMap<u64, usize>,
    specials: HashMap<Special, Register>,
    registers: Register,
    carry: Option<Register>,
    dynamic_shared: Option<usize>,
    shared_bytes: usize,
    local_bytes: usize,
    labels: HashMap<(usize, String), usize>,
    /// Branches whose target is not yet known: instruction, place in its list, label.
    unresolved: Vec<(usize, usize, (usize, String))>,
    tables: HashMap<(usize, String), Vec<String>>,
    /// Number of the inlined body that labels belong to.
    body: usize,
    bodies: usize,
    depth: usize,
    /// The label that `ret` jumps to inside of an inlined function.
    returns_to: Option<String>,
}

impl<'m> Compiler<'m> {
    fn new(module: &'m Module, globals: &'m HashMap<String, u64>, kernel: &'m str) -> Self {
        Self {
            module,
            globals,
            kernel,
            scopes: vec![HashMap::new()],
            shared: HashMap::new(),
            instructions: Vec::new(),
            constants: Vec::new(),
            constant_index: HashMap::new(),
            specials: HashMap::new(),
            registers: 0,
            carry: None,
            dynamic_shared: None,
            shared_bytes: 0,
            local_bytes: 0,
            labels: HashMap::new(),
            unresolved: Vec::new(),
            tables: HashMap::new(),
            body: 0,
            bodies: 0,
            depth: 0,
            returns_to: None,
        }
    }

    fn finish(
        mut self,
        parameters: Vec<(usize, usize)>,
        parameter_bytes: usize,
        max_threads: u32,
    ) -> Result<Program, PtxError> {
        for (instruction, place, label) in std::mem::take(&mut self.unresolved) {
            let found = *self.labels.get(&label).ok_or(PtxError::Unknown { name: label.1 })?;
            match &mut self.instructions[instruction].operation {
                Operation::Branch { target } => *target = found,
                Operation::BranchIndexed { targets, .. } => targets[place] = found,
                other => unreachable!("only branches wait for labels, not {other:?}"),
            }
        }
        let dynamic_shared_start = self.shared_bytes.next_multiple_of(16);
        if let Some(index) = self.dynamic_shared {
            self.constants[index] = dynamic_shared_start as u64;
        }
        Ok(Program {
            name: self.kernel.to_owned(),
            instructions: self.instructions,
            source: self.module.source.clone(),
            constants: self.constants,
            specials: self.specials.into_iter().map(|(special, register)| (register, special)).collect(),
            registers: self.registers as usize,
            parameters,
            parameter_bytes,
            static_shared_bytes: self.shared_bytes,
            dynamic_shared_start,
            local_bytes: self.local_bytes.next_multiple_of(16),
            max_threads,
        })
    }

    /// Compiles the statements of `function`; `ret` jumps to `returns_to`, or ends the thread where that is `None`.
    fn body(&mut self, function: &Function, returns_to: Option<String>) -> Result<(), PtxError> {
        self.bodies += 1;
        let outer_body = std::mem::replace(&mut self.body, self.bodies);
        let outer_return = std::mem::replace(&mut self.returns_to, returns_to);
        let module = self.module;
        let mut last_label = "";
        self.scopes.push(HashMap::new());
        for statement in &statements(&module.source[function.body.clone()])? {
            match statement {
                Statement::Open => self.scopes.push(HashMap::new()),
                Statement::Close => {
                    self.scopes.pop();
                }
                Statement::Label(name) => {
                    self.labels.insert((self.body, (*name).to_owned()), self.instructions.len());
                    last_label = name;
                }
                Statement::Registers(names) => self.declare_registers(names),
                Statement::Memory(space, declarations) => {
                    for declaration in declarations {
                        let symbol = self.place(*space, declaration);
                        self.declare(&declaration.name, symbol);
                    }
                }
                Statement::BranchTargets(targets) => {
                    let targets = targets.iter().map(|target| (*target).to_owned()).collect();
                    self.tables.insert((self.body, last_label.to_owned()), targets);
                }
                Statement::Instruction(call) => self.instruction(call)?,
            }
        }
        self.scopes.pop();
        self.body = outer_body;
        self.returns_to = outer_return;
        Ok(())
    }

    fn declare(&mut self, name: &str, symbol: Symbol) {
        self.scopes.last_mut().expect("a scope is open while a body is compiled").insert(name.to_owned(), symbol);
    }

    fn declare_registers(&mut self, names: &[(&str, Option<usize>)]) {
        for (name, count) in names {
            match count {
                None => {
                    let register = self.new_register();
                    self.declare(name, Symbol::Register(register));
                }
                Some(count) => {
                    for index in 0..*count {
                        let register = self.new_register();
                        self.declare(&format!("{name}{index}"), Symbol::Register(register));
                    }
                }
            }
        }
    }

    /// Places a variable in memory. Parameters of inlined functions are in local memory.
    fn place(&mut self, space: Space, declaration: &Declaration) -> Symbol {
        if space == Space::Shared {
            if declaration.bytes == 0 {
                return Symbol::DynamicShared;
            }
            let start = self.shared_bytes.next_multiple_of(declaration.align);
            self.shared_bytes = start + declaration.bytes;
            Symbol::Memory(space, start as u64)
        } else {
            let start = self.local_bytes.next_multiple_of(declaration.align.max(8));
            self.local_bytes = start + declaration.bytes;
            Symbol::Memory(Space::Local, start as u64)
        }
    }

    fn instruction(&mut self, call: &Call<'m>) -> Result<(), PtxError> {
        let result = match call.mnemonic.split('.').next() {
            Some("call") => return self.call(call),
            Some("bra") => self.branch(call),
            Some("brx") => self.branch_indexed(call),
            Some("ret") => self.return_(call),
            _ => decode(call, self).and_then(|operation| self.emit_guarded(call, operation).map(|_| ())),
        };
        result.map_err(|reason| self.error(call, reason))
    }

    fn error(&self, call: &Call, reason: String) -> PtxError {
        PtxError::Instruction { kernel: self.kernel.to_owned(), instruction: call.text.to_owned(), reason }
    }

    fn emit(&mut self, guard: Option<(Register, bool)>, operation: Operation, text: (u32, u32)) -> usize {
        self.instructions.push(Instruction { guard, operation, text });
        self.instructions.len() - 1
    }

    fn emit_guarded(&mut self, call: &Call, operation: Operation) -> Result<usize, String> {
        let guard = match call.guard {
            Some((name, negated)) => Some((self.register(name)?, negated)),
            None => None,
        };
        let start = call.text.as_ptr() as usize - self.module.source.as_ptr() as usize;
        Ok(self.emit(guard, operation, (start as u32, (start + call.text.len()) as u32)))
    }

    fn branch(&mut self, call: &Call) -> Result<(), String> {
        let [Operand::Name(label, 0)] = call.operands[..] else { return Err("a branch takes one label".to_owned()) };
        let label = (self.body, label.to_owned());
        let at = self.emit_guarded(call, Operation::Branch { target: 0 })?;
        self.unresolved.push((at, 0, label));
        Ok(())
    }

    fn branch_indexed(&mut self, call: &Call) -> Result<(), String> {
        let [index, Operand::Name(table, 0)] = &call.operands[..] else {
            return Err("an indexed branch takes an index and a table".to_owned());
        };
        let key = (self.body, (*table).to_owned());
        let labels = self.tables.get(&key).cloned().ok_or_else(|| format!("`{table}` is no table of branches"))?;
        let index = self.source(index, Type::U32)?;
        let targets = vec![0; labels.len()].into();
        let at = self.emit_guarded(call, Operation::BranchIndexed { index, targets })?;
        for (place, label) in labels.into_iter().enumerate() {
            self.unresolved.push((at, place, (self.body, label)));
        }
        Ok(())
    }

    fn return_(&mut self, call: &Call) -> Result<(), String> {
        match self.returns_to.clone() {
            None => self.emit_guarded(call, Operation::Exit).map(|_| ()),
            Some(label) => {
                let at = self.emit_guarded(call, Operation::Branch { target: 0 })?;
                self.unresolved.push((at, 0, (0, label)));
                Ok(())
            }
        }
    }

    /// Inlines a device function: its parameters become names of the caller's memory.
    fn call(&mut self, call: &Call<'m>) -> Result<(), PtxError> {
        let mut operands = call.operands.as_slice();
        let mut results: &[Operand] = &[];
        if let [Operand::List(list), rest @ ..] = operands {
            results = list;
            operands = rest;
        }
        let [Operand::Name(name, 0), rest @ ..] = operands else {
            return Err(self.error(call, "an indirect call".to_owned()));
        };
        let arguments: &[Operand] = if let [Operand::List(list), ..] = rest { list } else { &[] };
        let Some(function) = self.module.functions.get(*name) else { return self.call_runtime(call, name) };
        if self.depth == MAX_CALL_DEPTH {
            return Err(self.error(call, "a recursive call".to_owned()));
        }
        let mut names = HashMap::new();
        let formal = function.parameters.iter().chain(&function.results);
        for (parameter, argument) in formal.zip(arguments.iter().chain(results)) {
            let symbol = match argument {
                Operand::Name(argument, 0) => self.symbol(argument),
                _ => None,
            };
            let symbol =
                symbol.ok_or_else(|| self.error(call, format!("argument of `{}` is no variable", parameter.name)))?;
            names.insert(parameter.name.clone(), symbol);
        }
        let end = format!("return {}", self.bodies + 1);
        if let Some((name, negated)) = call.guard {
            let register = self.register(name).map_err(|reason| self.error(call, reason))?;
            let at = self.emit(Some((register, !negated)), Operation::Branch { target: 0 }, (0, 0));
            self.unresolved.push((at, 0, (0, end.clone())));
        }
        let outer = std::mem::replace(&mut self.scopes, vec![names]);
        self.depth += 1;
        self.body(function, Some(end.clone()))?;
        self.depth -= 1;
        self.scopes = outer;
        self.labels.insert((0, end), self.instructions.len());
        Ok(())
    }

    /// Compiles a call of a function that the CUDA runtime provides on a device.
    fn call_runtime(&mut self, call: &Call, name: &str) -> Result<(), PtxError> {
        let operation = match name {
            "vprintf" | "free" => Operation::Nop,
            "__assertfail" => Operation::Trap { why: "device assertion failed" },
            _ => return Err(self.error(call, format!("`{name}` is not defined in the module"))),
        };
        self.emit_guarded(call, operation).map(|_| ()).map_err(|reason| self.error(call, reason))
    }

    fn symbol(&mut self, name: &str) -> Option<Symbol> {
        if let Some(symbol) = self.scopes.iter().rev().find_map(|scope| scope.get(name)) {
            return Some(*symbol);
        }
        if let Some(address) = self.globals.get(name) {
            return Some(Symbol::Memory(Space::Global, *address));
        }
        if let Some(symbol) = self.shared.get(name) {
            return Some(*symbol);
        }
        let module = self.module;
        let variable = module
            .variables
            .iter()
            .find(|variable| variable.space == Space::Shared && variable.declaration.name == name)?;
        let symbol = self.place(Space::Shared, &variable.declaration);
        self.shared.insert(name.to_owned(), symbol);
        Some(symbol)
    }

    fn constant(&mut self, value: u64) -> Source {
        let next = self.constants.len();
        let index = *self.constant_index.entry(value).or_insert(next);
        if index == next {
            self.constants.push(value);
        }
        Source::constant(index)
    }

    /// The constant that [`Self::finish`] sets to the start of dynamic shared memory.
    fn dynamic_shared_start(&mut self) -> Source {
        let constants = &mut self.constants;
        Source::constant(*self.dynamic_shared.get_or_insert_with(|| {
            constants.push(0);
            constants.len() - 1
        }))
    }
}

impl Decoder for Compiler<'_> {
    fn new_register(&mut self) -> Register {
        self.registers += 1;
        self.registers - 1
    }

    fn register(&mut self, name: &str) -> Result<Register, String> {
        match self.symbol(name) {
            Some(Symbol::Register(register)) => Ok(register),
            _ if name == "_" => Ok(DISCARD),
            _ => Err(format!("`{name}` is no register")),
        }
    }

    fn carry(&mut self) -> Register {
        match self.carry {
            Some(register) => register,
            None => *self.carry.insert({
                self.registers += 1;
                self.registers - 1
            }),
        }
    }

    fn special(&mut self, special: Special) -> Source {
        let next = self.registers;
        let register = *self.specials.entry(special).or_insert(next);
        if register == next {
            self.registers += 1;
        }
        Source::register(register)
    }

    fn immediate(&mut self, value: u64) -> Source {
        self.constant(value)
    }

    fn named(&mut self, name: &str, offset: i64) -> Result<(Source, Option<Space>), String> {
        match self.symbol(name) {
            Some(Symbol::Register(register)) => Ok((Source::register(register), None)),
            Some(Symbol::Memory(space, address)) => {
                Ok((self.constant(address.wrapping_add_signed(offset)), Some(space)))
            }
            Some(Symbol::DynamicShared) if offset == 0 => Ok((self.dynamic_shared_start(), Some(Space::Shared))),
            Some(Symbol::DynamicShared) => Err("an offset into dynamic shared memory".to_owned()),
            None => Err(format!("`{name}` is not declared")),
        }
    }
}

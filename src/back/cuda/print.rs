//! From the tree to text.

use super::ast::{
    Constant, Entry, Expr, Module, Operator, Phase, Place, STEPS, Step, Stmt, TABLES, Table, Type,
    View, What,
};
use super::names::Name;
use std::fmt::Write;

/// Which thread this is.
const INDICES: [(&str, &str); 3] = [
    ("thread", "threadIdx.x"),
    ("warp", "threadIdx.x / 32"),
    ("lane", "threadIdx.x % 32"),
];

/// Arrays of the launch that phases read or write as they are.
const ARRAYS: [&str; 6] = [
    "a.spins",
    "a.inputs",
    "a.constants",
    "a.constants64",
    "a.outputs",
    "a.site_outputs",
];

/// The local name of an array of the launch. A pointer inside `a` would be loaded
/// again after every store, which might have changed it.
fn local(pointer: &Name) -> String {
    let name = pointer.to_string();
    match name.strip_prefix("a.") {
        Some(local) => local.to_owned(),
        None => name,
    }
}

/// Whether code holds many sums in registers at once.
fn wide_tile(body: &[Stmt]) -> bool {
    body.iter().any(|s| match s {
        Stmt::Sums(_, length) => *length > 8,
        Stmt::Each(_, _, body) | Stmt::Warps(_, _, body) => wide_tile(body),
        _ => false,
    })
}

/// Entries of a table per line.
const PER_LINE: usize = 16;

/// The text of a module, in working precision f32 if `single`.
pub fn print(module: &Module, single: bool) -> String {
    let mut p = Printer {
        out: String::new(),
        indent: 0,
        single,
    };
    p.module(module);
    p.out
}

struct Printer {
    out: String,
    indent: usize,
    single: bool,
}

fn type_name(ty: Type) -> &'static str {
    match ty {
        Type::Int => "int",
        Type::Bool => "bool",
        Type::Real => "real",
        Type::Double => "double",
        Type::Complex => "complex",
    }
}

fn symbol(op: Operator) -> (&'static str, u8) {
    match op {
        Operator::And => ("&&", 1),
        Operator::Equal => ("==", 2),
        Operator::Less => ("<", 3),
        Operator::Add => ("+", 4),
        Operator::Sub => ("-", 4),
        Operator::Mul => ("*", 5),
        Operator::Div => ("/", 5),
        Operator::Rem => ("%", 5),
    }
}

impl Printer {
    fn line(&mut self, text: &str) {
        if !text.is_empty() {
            for _ in 0..self.indent {
                self.out.push_str("    ");
            }
            self.out.push_str(text);
        }
        self.out.push('\n');
    }

    fn number(&self, x: f64, ty: Type) -> String {
        if x.is_nan() {
            return format!("{}(not_a_number())", type_name(ty));
        }
        if x.is_infinite() {
            let sign = if x > 0.0 { "" } else { "-" };
            return format!("{}({sign}infinity())", type_name(ty));
        }
        // the shortest text that reads back as the same number
        match ty {
            Type::Real if self.single && !(x as f32).is_infinite() => format!("{:?}f", x as f32),
            Type::Real => format!("real({x:?})"),
            _ => format!("{x:?}"),
        }
    }

    fn expr(&self, e: &Expr) -> String {
        self.inside(e, 0)
    }

    fn list(&self, items: &[Expr]) -> String {
        let items: Vec<String> = items.iter().map(|a| self.expr(a)).collect();
        items.join(", ")
    }

    /// With parentheses if it binds less tightly than its surroundings.
    fn inside(&self, e: &Expr, level: u8) -> String {
        let (text, own) = match e {
            Expr::Int(k) => (k.to_string(), if *k < 0 { 0 } else { 9 }),
            Expr::Number(x, t) => (
                self.number(*x, *t),
                if x.is_sign_negative() { 0 } else { 9 },
            ),
            Expr::Var(name, _) => (name.to_string(), 9),
            Expr::Call(name, arguments, _) => (format!("{name}({})", self.list(arguments)), 9),
            Expr::Load(pointer, index, _) => {
                (format!("{}[{}]", local(pointer), self.expr(index)), 9)
            }
            Expr::Negative(a) => (format!("-{}", self.inside(a, 6)), 5),
            Expr::Cast(ty, a) => (format!("{}({})", type_name(*ty), self.expr(a)), 9),
            Expr::Select(c, a, b) => {
                let (c, a, b) = (self.inside(c, 1), self.inside(a, 1), self.inside(b, 1));
                (format!("{c} ? {a} : {b}"), 0)
            }
            Expr::Binary(op, a, b) => {
                let (text, own) = symbol(*op);
                let (a, b) = (self.inside(a, own), self.inside(b, own + 1));
                (format!("{a} {text} {b}"), own)
            }
        };
        if own < level {
            format!("({text})")
        } else {
            text
        }
    }

    fn block(&mut self, head: &str, body: &[Stmt]) {
        self.line(&format!("{head} {{"));
        self.indent += 1;
        body.iter().for_each(|s| self.stmt(s));
        self.indent -= 1;
        self.line("}");
    }

    fn stmt(&mut self, s: &Stmt) {
        match s {
            Stmt::Comment(c) => self.line(&format!("// {c}")),
            Stmt::Let(name, value) => {
                let (ty, value) = (type_name(value.ty()), self.expr(value));
                self.line(&format!("const {ty} {name} = {value};"));
            }
            Stmt::Var(name, value) => {
                let (ty, value) = (type_name(value.ty()), self.expr(value));
                self.line(&format!("{ty} {name} = {value};"));
            }
            Stmt::Array(name, ty, length) => {
                self.line(&format!("{} {name}[{length}] = {{}};", type_name(*ty)));
            }
            Stmt::Sums(name, length) => self.line(&format!("Sums<{length}> {name} = {{}};")),
            Stmt::Set(name, value) => {
                let value = self.expr(value);
                self.line(&format!("{name} = {value};"));
            }
            Stmt::Store(pointer, index, value) => {
                let (index, value) = (self.expr(index), self.expr(value));
                self.line(&format!("{}[{index}] = {value};", local(pointer)));
            }
            Stmt::Do(call) => {
                let call = self.expr(call);
                self.line(&format!("{call};"));
            }
            Stmt::For(name, count, body) => {
                let count = self.expr(count);
                // left alone the compiler unrolls it all, and spills registers; a
                // register tile in the body is work enough to hide a load
                let tile = body.iter().any(|s| matches!(s, Stmt::Unroll(..)));
                self.line(if tile {
                    "#pragma unroll 2"
                } else {
                    "#pragma unroll 4"
                });
                self.block(
                    &format!("for (int {name} = 0; {name} < {count}; ++{name})"),
                    body,
                );
            }
            Stmt::Chunks(name, count, step, body) => {
                let head = format!("for (int {name} = 0; {name} < {count}; {name} += {step})");
                self.block(&head, body);
            }
            Stmt::Unroll(name, count, body) => {
                self.line("#pragma unroll");
                self.block(
                    &format!("for (int {name} = 0; {name} < {count}; ++{name})"),
                    body,
                );
            }
            Stmt::Each(name, count, body) => self.dealt(name, count, "thread", "threads", body),
            Stmt::Warps(name, count, body) => self.dealt(name, count, "warp", "warps", body),
            Stmt::Lanes(name, count, body) => self.dealt(name, count, "lane", "32", body),
            Stmt::If(condition, body) => {
                let condition = self.expr(condition);
                self.block(&format!("if ({condition})"), body);
            }
            Stmt::Barrier => self.line("__syncthreads();"),
            Stmt::Return(value) => {
                let value = self.expr(value);
                self.line(&format!("return {value};"));
            }
        }
    }

    fn dealt(&mut self, name: &Name, count: &Expr, first: &str, step: &str, body: &[Stmt]) {
        let count = self.inside(count, 4);
        // left alone the compiler unrolls by four: registers and seconds for nothing,
        // as there are other warps to go on with
        self.line("#pragma unroll 1");
        let head = format!("for (int {name} = {first}; {name} < {count}; {name} += {step})");
        self.block(&head, body);
    }

    fn view(&mut self, v: &View, offset: &dyn std::fmt::Display) {
        let (element, name) = (type_name(v.element), &v.name);
        let (constant, from) = match v.place {
            Place::Shared => ("", "shared_memory()".to_owned()),
            Place::Workspace(size) => ("", format!("own_workspace(a, {size})")),
            Place::Constants => ("const ", "a.constants".to_owned()),
            Place::Constants64 => ("const ", "a.constants64".to_owned()),
        };
        self.line(&format!(
            "const auto {name} = view<{constant}{element}>({from}, {offset}, {});",
            v.length
        ));
    }

    fn phase(&mut self, p: &Phase, memory: &[View]) {
        self.line("");
        let arguments: String = p.arguments.iter().map(|n| format!(", int {n}")).collect();
        self.line(&format!(
            "__device__ __noinline__ void {}(const Launch& a, int sample{arguments}) {{",
            p.name
        ));
        self.indent += 1;
        for (name, value) in INDICES {
            if p.uses(&name.into()) {
                self.line(&format!("const int {name} = {value};"));
            }
        }
        for array in ARRAYS {
            if p.uses(&array.into()) {
                self.line(&format!("const auto {} = {array};", local(&array.into())));
            }
        }
        memory
            .iter()
            .filter(|v| p.uses(&v.name))
            .for_each(|v| self.view(v, &v.offset));
        p.blocks.iter().for_each(|(v, from)| self.view(v, from));
        p.body.iter().for_each(|s| self.stmt(s));
        self.indent -= 1;
        self.line("}");
    }

    fn kernel(&mut self, m: &Module, entry: Entry) {
        // with wide tiles the compiler is told to leave room for two blocks: it then
        // finds an allocation without spills, and sooner
        let bounds = match m.phases.iter().any(|p| wide_tile(&p.body)) {
            true => format!("{}, 2", m.threads),
            false => m.threads.to_string(),
        };
        let head = format!(
            "extern \"C\" __global__ void __launch_bounds__({bounds}) {}(const __grid_constant__ Launch a)",
            m.kernel
        );
        self.line(&format!("{head} {{"));
        self.indent += 1;
        let all = "for (int sample = blockIdx.x; sample < a.samples; sample += gridDim.x)";
        match entry {
            Entry::Once | Entry::Part => {
                self.line(&format!("{all} {{"));
                self.indent += 1;
                self.sample(m);
                self.indent -= 1;
                self.line("}");
            }
            Entry::Chains { sites, width } => {
                self.line(&format!("{all} {{"));
                self.indent += 1;
                self.line(&format!(
                    "Chain chain = begin_chain(a, sample, threads, {sites}, {width});"
                ));
                self.line("while (propose(chain)) {");
                self.indent += 1;
                self.sample(m);
                self.line("decide(a, chain);");
                self.indent -= 1;
                self.line("}");
                self.line("finish_chain(a, chain);");
                self.indent -= 1;
                self.line("}");
            }
        }
        self.indent -= 1;
        self.line("}");
    }

    /// An enumeration: constants would become symbols of the machine code.
    fn constants(&mut self, constants: &[Constant]) {
        let names: Vec<String> = constants.iter().map(|c| c.name.to_string()).collect();
        let Some(width) = names.iter().map(String::len).max() else {
            return;
        };
        self.line("enum : int {");
        self.indent += 1;
        for (c, name) in constants.iter().zip(names) {
            self.line(&format!("{name:<width$} = {}, // {}", c.value, c.comment));
        }
        self.indent -= 1;
        self.line("};");
    }

    fn tables(&mut self, tables: &[Table]) {
        let Some(last) = tables.last() else { return };
        let length = last.start + last.values.len();
        self.line("");
        self.line(&format!("__device__ const int {TABLES}[{length}] = {{"));
        self.indent += 1;
        for t in tables {
            self.line(&format!("// {}", t.name));
            for chunk in t.values.chunks(PER_LINE) {
                let mut text = String::new();
                for v in chunk {
                    let _ = write!(text, "{v}, ");
                }
                self.line(text.trim_end());
            }
        }
        self.indent -= 1;
        self.line("};");
    }

    /// The steps as a table: the number of a function and its arguments, after a tilde
    /// where threads wait before.
    fn steps(&mut self, m: &Module) {
        if m.steps.is_empty() {
            return;
        }
        let (mut taken, mut length) = ((0, 0, 0), 0);
        let mut row = |s: &Step| {
            let mut numbers = match &s.what {
                What::Call(phase, own) => {
                    let own = own.iter().map(|x| self.expr(x));
                    std::iter::once(phase.to_string()).chain(own).collect()
                }
                What::Take(total, most) => {
                    taken = (*total, *most, length + 2);
                    vec!["TAKE".to_owned(), most.min(total).to_string()]
                }
                What::Again => {
                    let (total, most, begin) = taken;
                    let numbers = [total, most, length - begin].map(|n| n.to_string());
                    [vec!["AGAIN".to_owned()], numbers.to_vec()].concat()
                }
            };
            length += numbers.len();
            if s.waits {
                numbers[0].insert(0, '~');
            }
            numbers.join(", ") + ","
        };
        let rows: Vec<String> = m.steps.iter().map(&mut row).collect();
        self.line("");
        self.line(
            "// What is done for a sample: functions by their numbers, and arguments of theirs.",
        );
        self.line("// Before a step with a tilde all threads wait for each other.");
        self.line(&format!(
            "enum : int {{ TAKE = {}, AGAIN, END }};",
            m.phases.len()
        ));
        self.line(&format!("__device__ const int {STEPS}[] = {{"));
        self.indent += 1;
        rows.iter().for_each(|r| self.line(r));
        self.line("END,");
        self.indent -= 1;
        self.line("};");
    }

    /// What is computed for one sample. The next step is looked up before the present one
    /// is made, together with its arguments.
    fn sample(&mut self, m: &Module) {
        if !m.steps.is_empty() {
            self.walk(m);
        }
        m.body.iter().for_each(|s| self.stmt(s));
    }

    fn walk(&mut self, m: &Module) {
        let takes = m.steps.iter().any(|s| s.what == What::Again);
        self.line(&format!("int at = 0, step = {STEPS}[0];"));
        if takes {
            self.line("int first = 0, count = 0;");
        }
        self.line("while (step != END) {");
        self.indent += 1;
        self.line("if (step < 0) __syncthreads();");
        self.line("switch (step < 0 ? ~step : step) {");
        for (number, p) in m.phases.iter().enumerate() {
            let taken = p.taken();
            let own = p.arguments.len() - taken;
            let given: String = (p.arguments[..taken].iter().map(|n| format!(", {n}")))
                .chain((1..=own).map(|k| format!(", {STEPS}[at + {k}]")))
                .collect();
            self.case(
                &number.to_string(),
                &[
                    &format!("step = {STEPS}[at + {}];", own + 1),
                    &format!("{}(a, sample{given});", p.name),
                    &format!("at += {};", own + 1),
                ],
            );
        }
        if takes {
            self.case(
                "TAKE",
                &[
                    "first = 0;",
                    &format!("count = {STEPS}[at + 1];"),
                    "at += 2;",
                    &format!("step = {STEPS}[at];"),
                ],
            );
            self.case(
                "AGAIN",
                &[
                    &format!("first += {STEPS}[at + 2];"),
                    &format!("count = smaller({STEPS}[at + 2], {STEPS}[at + 1] - first);"),
                    &format!("at = count > 0 ? at - {STEPS}[at + 3] : at + 4;"),
                    &format!("step = {STEPS}[at];"),
                ],
            );
        }
        self.line("}");
        self.indent -= 1;
        self.line("}");
    }

    fn case(&mut self, which: &str, lines: &[&str]) {
        self.line(&format!("case {which}:"));
        self.indent += 1;
        lines.iter().for_each(|l| self.line(l));
        self.line("break;");
        self.indent -= 1;
    }

    fn module(&mut self, m: &Module) {
        for c in &m.title {
            self.line(&format!("// {c}"));
        }
        self.line("namespace dnet {");
        self.line(&format!("namespace {}_code {{", m.kernel));
        self.line("");
        self.line(&format!("constexpr int threads = {};", m.threads));
        if m.phases.iter().any(|p| p.uses(&"warps".into())) {
            self.line("constexpr int warps = threads / 32;");
        }
        self.constants(&m.constants);
        self.tables(&m.tables);
        for f in &m.functions {
            self.line("");
            self.line(&format!("// {}", f.comment));
            let argument = |(name, ty): &(Name, Type)| format!("{} {name}", type_name(*ty));
            let arguments: Vec<String> = f.arguments.iter().map(argument).collect();
            let head = format!(
                "__device__ inline {} {}({})",
                type_name(f.result),
                f.name,
                arguments.join(", ")
            );
            self.block(&head, &f.body);
        }
        m.phases.iter().for_each(|p| self.phase(p, &m.memory));
        self.steps(m);
        self.line("");
        match m.entry {
            Entry::Part => {
                self.line("__device__ __noinline__ void compute(const Launch& a, int sample) {");
                self.indent += 1;
                self.sample(m);
                self.indent -= 1;
                self.line("}");
            }
            entry => self.kernel(m, entry),
        }
        self.line("");
        self.line(&format!("}} // namespace {}_code", m.kernel));
        self.line("} // namespace dnet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_do_not_run_together() {
        let p = Printer {
            out: String::new(),
            indent: 0,
            single: true,
        };
        let number = |x| Expr::Number(x, Type::Real);
        let negative = |e| Expr::Negative(Box::new(e));
        assert_eq!(p.expr(&negative(number(-0.0))), "-(-0.0f)");
        assert_eq!(p.expr(&(number(1.0) - number(-0.0))), "1.0f - (-0.0f)");
        assert_eq!(p.expr(&negative(number(-2.5))), "-(-2.5f)");
        assert_eq!(p.expr(&negative(negative(Expr::Int(-3)))), "-(-(-3))");
        assert_eq!(p.expr(&number(0.0)), "0.0f");
    }
}

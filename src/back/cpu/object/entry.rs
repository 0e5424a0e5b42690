//! The functions a C program calls.

use super::super::jit::JitError;
use super::super::math::Precision;
use super::routines::{Code, define, local, scalar};
use super::section::Finished;
use super::{ABI, Argument, Call};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use cranelift_module::{DataId, FuncId, Linkage, Module};
use cranelift_object::ObjectModule;
use std::collections::HashMap;

/// What functions return.
pub(super) const WRONG_BLOCK: i64 = 1;
/// A site that does not exist, or twice.
pub(super) const WRONG_SITE: i64 = 2;

/// Everything the functions of an object need.
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) sites: usize,
    /// Number of parameters.
    pub(super) params: usize,
    /// What a block of parameters starts with.
    pub(super) fingerprint: u64,
    pub(super) log_psi: Finished,
    /// Above and below the cut.
    pub(super) gradient: Option<[Finished; 2]>,
    /// Single flips, or why they are evaluated in full.
    pub(super) flips: Result<Flips, String>,
}

/// The flip program of single flips.
pub(super) struct Flips {
    pub(super) changes: Finished,
    pub(super) readout: Finished,
    /// Per site the offsets of its change.
    pub(super) table: Argument,
}

/// Bytes of memory and numbers that C programs see.
pub(super) struct Sizes {
    pub(super) workspace: i64,
    pub(super) background: i64,
    pub(super) block: i64,
    places: Places,
}

/// Where the parts of a background are.
#[derive(Clone, Copy)]
struct Places {
    /// The block of parameters.
    params: i64,
    /// log psi by full evaluation, then by the readout of the flip program.
    log_psi: i64,
    readout: i64,
    spins: i64,
    flipped: i64,
    /// Features of the background, and of a change of it.
    features: i64,
    changed: i64,
    evaluation: i64,
    changes: i64,
    last: i64,
}

impl Entry<'_> {
    pub(super) fn sizes(&self, block: usize) -> Sizes {
        let mut at = 0;
        let mut take = |bytes: i64| {
            let here = at;
            at += (bytes + 63) / 64 * 64;
            here
        };
        let (width, sites) = (self.log_psi.width as i64, self.sites as i64);
        let flips = self.flips.as_ref().ok();
        let features = flips.map_or(0, |f| 8 * f.changes.width as i64);
        let places = Places {
            params: take(8),
            log_psi: take(8 * width),
            readout: take(8 * width),
            spins: take(sites),
            flipped: take(sites),
            features: take(features),
            changed: take(features),
            evaluation: take(self.log_psi.bytes),
            changes: take(flips.map_or(0, |f| f.changes.bytes)),
            last: take(flips.map_or(0, |f| f.readout.bytes)),
        };
        let background = at;
        let gradient = self.gradient.as_ref();
        let gradient = gradient.map_or(0, |[above, below]| {
            // derivatives at the cut lie between the two
            below_start(above) + below.bytes
        });
        Sizes {
            workspace: (self.log_psi.bytes.max(gradient) + 63) / 64 * 64,
            background,
            block: block as i64,
            places,
        }
    }

    /// Defines all functions.
    pub(super) fn define(
        self,
        module: &mut ObjectModule,
        [tables, block]: [DataId; 2],
        precision: Precision,
        sizes: &Sizes,
    ) -> Result<(), JitError> {
        let run = Functions {
            tables,
            block,
            entry: &self,
            sizes,
        };
        let one = run.section(module, "evaluate", &self.log_psi)?;
        run.log_psi(module, one)?;
        if let Some([above, below]) = &self.gradient {
            let first = run.section(module, "above", above)?;
            let second = run.section(module, "below", below)?;
            run.gradient(module, [above, below], [first, second])?;
        }
        let flips = match &self.flips {
            Ok(f) => {
                let changes = run.section(module, "changes", &f.changes)?;
                let readout = run.section(module, "readout", &f.readout)?;
                Some((f, changes, readout))
            }
            Err(_) => None,
        };
        let flips = flips.map(|(f, changes, readout)| (f, [changes, readout]));
        run.background(module, one, flips.as_ref().map(|f| f.1))?;
        run.log_ratio(module, one, flips, precision)?;
        run.sizes(module)
    }
}

/// Where the memory of the program below the cut starts.
fn below_start(above: &Finished) -> i64 {
    (above.bytes + 8 * above.width as i64 + 63) / 64 * 64
}

/// Defines the functions of one object.
struct Functions<'e> {
    tables: DataId,
    block: DataId,
    entry: &'e Entry<'e>,
    sizes: &'e Sizes,
}

impl Functions<'_> {
    fn exported(&self, what: &str) -> String {
        format!("{}_{what}", self.entry.name)
    }

    /// A section as a function `(given, out, memory, block)`.
    fn section(
        &self,
        module: &mut ObjectModule,
        name: &str,
        section: &Finished,
    ) -> Result<FuncId, JitError> {
        define(module, local(name), (4, None), |module, c, given| {
            let tables = module.declare_data_in_func(self.tables, c.b.func);
            let mut known = HashMap::new();
            for Call { routine, arguments } in &section.calls {
                let function = *known
                    .entry(*routine)
                    .or_insert_with(|| module.declare_func_in_func(*routine, c.b.func));
                let mut values = Vec::new();
                for argument in arguments {
                    values.push(match *argument {
                        Argument::Number(n) => c.number(n),
                        Argument::Given => given[0],
                        Argument::Out => given[1],
                        Argument::Arena(at) => c.b.ins().iadd_imm_s(given[2], at),
                        Argument::Params(at) => c.b.ins().iadd_imm_s(given[3], at as i64),
                        Argument::Data(at) => {
                            let start = c.b.ins().symbol_value(types::I64, tables);
                            c.b.ins().iadd_imm_s(start, at as i64)
                        }
                    });
                }
                c.b.ins().call(function, &values);
            }
            None
        })
    }

    /// The block given, or that of the object; returns [`WRONG_BLOCK`] for a block of
    /// another network.
    fn params(&self, module: &mut ObjectModule, c: &mut Code, given: Value) -> Value {
        let own = module.declare_data_in_func(self.block, c.b.func);
        let own = c.b.ins().symbol_value(types::I64, own);
        let none = c.b.ins().icmp_imm_s(IntCC::Equal, given, 0);
        let params = c.b.ins().select(none, own, given);
        let found = c.load(types::I64, params);
        let wanted = c.number(self.entry.fingerprint as i64);
        let wrong = c.b.ins().icmp(IntCC::NotEqual, found, wanted);
        c.leave_if(wrong, WRONG_BLOCK);
        params
    }

    fn log_psi(&self, module: &mut ObjectModule, one: FuncId) -> Result<(), JitError> {
        let name = self.exported("log_psi");
        let (bytes, width) = (self.entry.log_psi.bytes, self.entry.log_psi.width as i64);
        let head = ((name.as_str(), Linkage::Export), (5, Some(types::I32)));
        define(module, head.0, head.1, |module, c, given| {
            let &[spins, count, params, out, memory] = given else {
                unreachable!("five arguments")
            };
            let params = self.params(module, c, params);
            clean(c, memory, bytes);
            let one = module.declare_func_in_func(one, c.b.func);
            c.for_each(count, |c, k| {
                let from = c.at(spins, k, self.entry.sites as i64);
                let to = c.at(out, k, 8 * width);
                c.b.ins().call(one, &[from, to, memory, params]);
            });
            Some(c.b.ins().iconst(types::I32, 0))
        })?;
        Ok(())
    }

    fn gradient(
        &self,
        module: &mut ObjectModule,
        [above, below]: [&Finished; 2],
        functions: [FuncId; 2],
    ) -> Result<(), JitError> {
        let name = self.exported("gradient");
        let parts = self.entry.log_psi.width as i64;
        let each = above.width as i64 / parts;
        let head = ((name.as_str(), Linkage::Export), (6, Some(types::I32)));
        define(module, head.0, head.1, |module, c, given| {
            let &[spins, count, params, re, im, memory] = given else {
                unreachable!("six arguments")
            };
            let params = self.params(module, c, params);
            let start = below_start(above);
            clean(c, memory, start + below.bytes);
            let functions = functions.map(|f| module.declare_func_in_func(f, c.b.func));
            c.for_each(count, |c, k| {
                let from = c.at(spins, k, self.entry.sites as i64);
                let cut = c.b.ins().iadd_imm_s(memory, above.bytes);
                c.b.ins().call(functions[0], &[from, cut, memory, params]);
                let rest = c.b.ins().iadd_imm_s(memory, start);
                for (part, out) in [re, im].into_iter().enumerate().take(parts as usize) {
                    let from = c.b.ins().iadd_imm_s(cut, 8 * each * part as i64);
                    let to = c.at(out, k, 8 * below.width as i64);
                    c.b.ins().call(functions[1], &[from, to, rest, params]);
                }
            });
            Some(c.b.ins().iconst(types::I32, 0))
        })?;
        Ok(())
    }

    fn background(
        &self,
        module: &mut ObjectModule,
        one: FuncId,
        flips: Option<[FuncId; 2]>,
    ) -> Result<(), JitError> {
        let name = self.exported("background");
        let head = ((name.as_str(), Linkage::Export), (4, Some(types::I32)));
        define(module, head.0, head.1, |module, c, given| {
            let &[spins, params, out, memory] = given else {
                unreachable!("four arguments")
            };
            let at = self.sizes.places;
            let params = self.params(module, c, params);
            clean(c, memory, self.sizes.background);
            let to = c.b.ins().iadd_imm_s(memory, at.params);
            c.store(params, to);
            let sites = c.number(self.entry.sites as i64);
            let copies = [at.spins, at.flipped].map(|place| c.b.ins().iadd_imm_s(memory, place));
            c.for_each(sites, |c, k| {
                let from = c.add(spins, k);
                let s = c.load(types::I8, from);
                for copy in copies {
                    let to = c.add(copy, k);
                    c.store(s, to);
                }
            });
            let place = |c: &mut Code, at: i64| c.b.ins().iadd_imm_s(memory, at);
            let one = module.declare_func_in_func(one, c.b.func);
            let (log_psi, work) = (place(c, at.log_psi), place(c, at.evaluation));
            c.b.ins().call(one, &[spins, log_psi, work, params]);
            for k in 0..self.entry.log_psi.width as i64 {
                let from = c.b.ins().iadd_imm_s(log_psi, 8 * k);
                let x = c.load(types::F64, from);
                let to = c.b.ins().iadd_imm_s(out, 8 * k);
                c.store(x, to);
            }
            if let Some(functions) = flips {
                let [changes, readout] =
                    functions.map(|f| module.declare_func_in_func(f, c.b.func));
                let (features, work) = (place(c, at.features), place(c, at.changes));
                c.b.ins().call(changes, &[spins, features, work, params]);
                let (old, work) = (place(c, at.readout), place(c, at.last));
                c.b.ins().call(readout, &[features, old, work, params]);
            }
            Some(c.b.ins().iconst(types::I32, 0))
        })?;
        Ok(())
    }

    fn log_ratio(
        &self,
        module: &mut ObjectModule,
        one: FuncId,
        flips: Option<(&Flips, [FuncId; 2])>,
        precision: Precision,
    ) -> Result<(), JitError> {
        let name = self.exported("log_ratio");
        let head = ((name.as_str(), Linkage::Export), (4, Some(types::I32)));
        let (at, sites) = (self.sizes.places, self.entry.sites as i64);
        let single = match flips {
            Some((f, [_, readout])) => Some(self.single(module, f, readout, precision)?),
            None => None,
        };
        define(module, head.0, head.1, |module, c, given| {
            let &[flips, count, out, memory] = given else {
                unreachable!("four arguments")
            };
            // every site exists, and none is there twice
            c.for_each(count, |c, k| {
                let from = c.at(flips, k, 8);
                let site = c.load(types::I64, from);
                let wrong =
                    c.b.ins()
                        .icmp_imm_s(IntCC::UnsignedGreaterThanOrEqual, site, sites);
                c.leave_if(wrong, WRONG_SITE);
                c.for_each(k, |c, l| {
                    let from = c.at(flips, l, 8);
                    let other = c.load(types::I64, from);
                    let same = c.b.ins().icmp(IntCC::Equal, site, other);
                    c.leave_if(same, WRONG_SITE);
                });
            });
            if let Some(single) = single {
                let is_one = c.b.ins().icmp_imm_s(IntCC::Equal, count, 1);
                let [then, otherwise] = [(); 2].map(|()| c.b.create_block());
                c.b.ins().brif(is_one, then, &[], otherwise, &[]);
                c.b.switch_to_block(then);
                let single = module.declare_func_in_func(single, c.b.func);
                let site = c.load(types::I64, flips);
                c.b.ins().call(single, &[site, out, memory]);
                let zero = c.b.ins().iconst(types::I32, 0);
                c.b.ins().return_(&[zero]);
                c.b.switch_to_block(otherwise);
            }
            let place = |c: &mut Code, at: i64| c.b.ins().iadd_imm_s(memory, at);
            let flipped = place(c, at.flipped);
            let flip = |c: &mut Code| {
                c.for_each(count, |c, k| {
                    let from = c.at(flips, k, 8);
                    let site = c.load(types::I64, from);
                    let to = c.add(flipped, site);
                    let s = c.load(types::I8, to);
                    let s = c.b.ins().ineg(s);
                    c.store(s, to);
                });
            };
            flip(c);
            let from = place(c, at.params);
            let params = c.load(types::I64, from);
            let one = module.declare_func_in_func(one, c.b.func);
            let (old, work) = (place(c, at.log_psi), place(c, at.evaluation));
            c.b.ins().call(one, &[flipped, out, work, params]);
            flip(c);
            self.subtract(c, out, old);
            Some(c.b.ins().iconst(types::I32, 0))
        })?;
        Ok(())
    }

    /// `out -= old`
    fn subtract(&self, c: &mut Code, out: Value, old: Value) {
        for k in 0..self.entry.log_psi.width as i64 {
            let [to, from] = [out, old].map(|p| c.b.ins().iadd_imm_s(p, 8 * k));
            let (new, old) = (c.load(types::F64, to), c.load(types::F64, from));
            let difference = c.b.ins().fsub(new, old);
            c.store(difference, to);
        }
    }

    /// `(site, out, memory)`: the ratio of a single flip from its change of the
    /// features.
    fn single(
        &self,
        module: &mut ObjectModule,
        f: &Flips,
        readout: FuncId,
        precision: Precision,
    ) -> Result<FuncId, JitError> {
        let at = self.sizes.places;
        define(module, local("single"), (3, None), |module, c, given| {
            let &[site, out, memory] = given else {
                unreachable!("three arguments")
            };
            let tables = module.declare_data_in_func(self.tables, c.b.func);
            let table = c.b.ins().symbol_value(types::I64, tables);
            let Argument::Data(place) = f.table else {
                unreachable!("a table")
            };
            let table = c.b.ins().iadd_imm_s(table, place as i64);
            let width = f.changes.width as i64;
            let places = [at.features, at.changes, at.changed];
            let [features, changes, inputs] = places.map(|at| c.b.ins().iadd_imm_s(memory, at));
            let row = c.at(table, site, 4 * width);
            let count = c.number(width);
            c.for_each(count, |c, k| {
                let from = c.entry(changes, row, k, 0);
                let x = c.load(scalar(precision), from);
                let x = c.convert(x, scalar(precision), types::F64);
                let from = c.at(features, k, 8);
                let old = c.load(types::F64, from);
                let sum = c.b.ins().fadd(old, x);
                let to = c.at(inputs, k, 8);
                c.store(sum, to);
            });
            let from = c.b.ins().iadd_imm_s(memory, at.params);
            let params = c.load(types::I64, from);
            let work = c.b.ins().iadd_imm_s(memory, at.last);
            let readout = module.declare_func_in_func(readout, c.b.func);
            c.b.ins().call(readout, &[inputs, out, work, params]);
            let old = c.b.ins().iadd_imm_s(memory, at.readout);
            self.subtract(c, out, old);
            None
        })
    }

    /// Functions without arguments.
    fn sizes(&self, module: &mut ObjectModule) -> Result<(), JitError> {
        let e = self.entry;
        let sizes = [
            ("abi", i64::from(ABI)),
            ("sites", e.sites as i64),
            ("outputs", e.log_psi.width as i64),
            ("param_count", e.params as i64),
            ("block_bytes", self.sizes.block),
            ("workspace_bytes", self.sizes.workspace),
            ("background_bytes", self.sizes.background),
        ];
        for (what, size) in sizes {
            let name = self.exported(what);
            let head = ((name.as_str(), Linkage::Export), (0, Some(types::I64)));
            define(module, head.0, head.1, |_, c, _| Some(c.number(size)))?;
        }
        Ok(())
    }
}

/// Fills memory with zeros: lanes that belong to no site are computed too.
fn clean(c: &mut Code, memory: Value, bytes: i64) {
    let words = c.number(bytes / 8);
    let zero = c.number(0);
    c.for_each(words, |c, k| {
        let to = c.at(memory, k, 8);
        c.store(zero, to);
    });
}

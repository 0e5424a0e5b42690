//! `dnetc`, the command line.
fn main() {
    let mut bad = false;
    for f in std::env::args().skip(1) {
        let p = dnet::check::Program::load(std::path::Path::new(&f));
        let diags = p.check();
        for d in &diags {
            let at = |s: dnet::syntax::ast::Span| {
                let src = &p.sources().files[s.file.0 as usize];
                let line = src.text[..s.start as usize].matches('\n').count() + 1;
                format!("{}:{line} `{}`", src.name, &src.text[s.start as usize..(s.end as usize).min(s.start as usize + 60)])
            };
            println!("{:?} {} {}\n   {} {}", d.severity(), d.code.as_str(), d.message, at(d.primary.span), d.primary.message);
            for l in &d.secondary { println!("   also {} {}", at(l.span), l.message); }
            if let Some(h) = &d.help { println!("   help: {h}"); }
        }
        bad |= !diags.is_empty();
        for n in p.networks() {
            if let Ok(i) = p.network(&n.name.name).check() {
                let total: usize = i.params.iter().map(|p| p.ty.shape.iter().map(|d| match d { dnet::check::core::Dim::Static(n) => *n, _ => 0 }).product::<usize>()).sum();
                println!("{f}: {} params {} values {} mixers {}", n.name.name, total, i.values.len(), i.mixers.len());
            }
        }
    }
    std::process::exit(bad as i32)
}

//! `dnetc`, the compiler's command line.

fn main() -> std::process::ExitCode {
    dnet::cli::main()
}

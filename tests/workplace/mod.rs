//! `dnetc` from outside, in a directory of its own.
#![allow(dead_code)] // each test crate uses a part of it

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A temporary directory in which `dnetc` runs.
pub struct Workplace {
    dir: tempfile::TempDir,
}

impl Workplace {
    pub fn new() -> Workplace {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Workplace { dir }
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    /// Writes a file; its path as an argument.
    pub fn write(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dnetc"));
        command
            .args(args)
            .env("DNET_COSTS", "")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }
    pub fn dnetc(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("dnetc runs")
    }
    /// A call that must succeed.
    pub fn succeeds(&self, args: &[&str]) -> Output {
        let output = self.dnetc(args);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        output
    }
    /// A call that must fail with one message and a way out: its message.
    pub fn fails(&self, args: &[&str]) -> String {
        let output = self.dnetc(args);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.contains("error"), "{text}");
        assert!(
            text.contains("help") || text.contains("[E"),
            "no way out: {text}"
        );
        assert!(!text.contains("panicked"), "{text}");
        text
    }
    /// Sends a signal once a line on standard error says so; what is written after
    /// that, and the exit code.
    pub fn interrupted(
        &self,
        args: &[&str],
        signal: &str,
        mut due: impl FnMut(&str) -> bool,
    ) -> (String, Option<i32>) {
        let mut child = self
            .command(args)
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !due(&line) {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it ended early");
        }
        let id = child.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().unwrap();
        assert!(sent.success());
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        (rest, child.wait().unwrap().code())
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub fn contains_all(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

//! What long verbs show while they run, and how they are stopped.

use super::common::{CliError, Ui};
use crate::train::Event;
use crate::vmc::log::progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Ctrl-C and SIGTERM.
pub(super) struct Signals {
    pub(super) stop: Arc<AtomicBool>,
    /// Training is over and saved: leaving at once loses nothing.
    pub(super) saved: Arc<AtomicBool>,
}

impl Signals {
    /// `resume` is the command that continues.
    pub(super) fn install(resume: &str) -> Result<Signals, CliError> {
        let (stop, saved) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let signals = Signals {
            stop: stop.clone(),
            saved: saved.clone(),
        };
        let resume = resume.to_owned();
        let handler = move || {
            let again = stop.swap(true, Ordering::Relaxed);
            if saved.load(Ordering::Relaxed) {
                eprintln!(
                    "\nstopped during the final measurement; training is saved\n  measure with: {resume}"
                );
                std::process::exit(130);
            }
            if again {
                eprintln!(
                    "\nleft at once; the last checkpoint is complete\n  continue with: {resume}"
                );
                std::process::exit(130);
            }
            eprintln!("\nstopping (once more to leave at once)");
        };
        ctrlc::set_handler(handler)
            .map_err(|e| CliError::plain(format!("signals cannot be handled: {e}")))?;
        Ok(signals)
    }
}

/// A progress bar on a terminal, plain lines elsewhere.
pub(super) struct Show<'a> {
    ui: &'a Ui,
    bar: ProgressBar,
    plain: bool,
    verbose: bool,
    every: usize,
}

impl<'a> Show<'a> {
    pub(super) fn new(ui: &'a Ui, verbose: bool) -> Show<'a> {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{pos:>5}/{len} {bar:24} {eta:>4} {msg}") {
            bar.set_style(style);
        }
        Show {
            ui,
            plain: bar.is_hidden(),
            verbose,
            bar,
            every: 1,
        }
    }

    pub(super) fn line(&self, text: &str) {
        if self.plain {
            self.ui.note(text);
        } else {
            self.bar.println(text);
        }
    }

    pub(super) fn event(&mut self, event: Event) {
        match event {
            Event::Started {
                parameters,
                done,
                total,
                directory,
            } => {
                self.bar.set_length(total as u64);
                self.bar.set_position(done as u64);
                // at most about forty lines, at round numbers
                self.every = (total / 40).max(1);
                self.line(&format!(
                    "{parameters} parameters, writing to {}",
                    directory.display()
                ));
                if done > 0 {
                    self.line(&format!("continuing after {done} iterations"));
                }
            }
            Event::Iteration {
                done,
                total,
                energy,
                timings,
            } => {
                let mut text = progress("Energy", energy);
                if self.verbose {
                    text += &format!(" seconds: {}", timings.text());
                }
                if self.plain && (done % self.every == 0 || done == 1 || done == total) {
                    self.ui.note(&format!("{done}/{total} {text}"));
                }
                self.bar.set_position(done as u64);
                self.bar.set_message(text);
            }
            Event::Message(text) => self.line(&format!("note: {text}")),
            Event::Evaluating { samples } => {
                self.bar.abandon();
                let how = match samples {
                    Some(samples) => format!("{samples} samples"),
                    None => "summing over all configurations".to_owned(),
                };
                self.ui
                    .note(&format!("measuring with frozen parameters, {how}"));
            }
        }
    }

    pub(super) fn finish(&self) {
        self.bar.abandon();
    }
}

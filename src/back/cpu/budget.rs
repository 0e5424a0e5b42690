//! A limit on the memory that the programs of a network work in.
//!
//! Workspaces are lent out of a budget. One that does not fit first drives out
//! the idle ones of all programs, then waits for those in use: more memory means
//! more samples and threads at once, never other results.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

/// Between two looks for idle workspaces, should a notice be missed.
const PATIENCE: Duration = Duration::from_millis(5);

/// Idle memory that can be given back.
pub(super) trait Idle: Send + Sync {
    /// Gives it back.
    fn release(&self);
}

/// Bytes that programs may work in together.
pub struct Budget {
    limit: usize,
    state: Mutex<State>,
    freed: Condvar,
}

#[derive(Default)]
struct State {
    lent: usize,
    idle: Vec<Weak<dyn Idle>>,
}

/// Memory taken from a budget, until it is dropped.
pub struct Loan {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.budget.state().lent -= self.bytes;
        self.budget.freed.notify_all();
    }
}

/// What all networks of the process share.
static PROCESS: OnceLock<Arc<Budget>> = OnceLock::new();

/// Sets the limit of the process; `false` if a network has been built before.
pub fn limit_process(bytes: usize) -> bool {
    PROCESS.set(Arc::new(Budget::new(bytes))).is_ok()
}

impl Budget {
    /// What all networks of the process share: half of the memory of the machine,
    /// unless [`limit_process`] has said otherwise.
    pub fn of_the_process() -> &'static Arc<Budget> {
        let half = || physical_memory().map_or(usize::MAX, |bytes| bytes / 2);
        PROCESS.get_or_init(|| Arc::new(Budget::new(half())))
    }

    /// At most so many bytes.
    pub fn new(limit: usize) -> Budget {
        Budget {
            limit,
            state: Mutex::default(),
            freed: Condvar::new(),
        }
    }

    /// The limit in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Memory that others may ask for.
    pub(super) fn register(&self, idle: Weak<dyn Idle>) {
        let state = &mut *self.state();
        state.idle.retain(|i| i.strong_count() > 0);
        state.idle.push(idle);
    }

    /// Takes bytes, once they are there. More than the limit is lent if nothing
    /// else is.
    pub(super) fn take(self: &Arc<Budget>, bytes: usize) -> Loan {
        let mut state = self.state();
        while state.lent > 0 && state.lent.saturating_add(bytes) > self.limit {
            let idle: Vec<_> = state.idle.iter().filter_map(Weak::upgrade).collect();
            drop(state);
            // loans come back, and programs may go, while the state is unlocked
            idle.into_iter().for_each(|i| i.release());
            state = self.state();
            if state.lent == 0 || state.lent.saturating_add(bytes) <= self.limit {
                break;
            }
            let wait = self.freed.wait_timeout(state, PATIENCE);
            state = wait.map_or_else(|e| e.into_inner().0, |w| w.0);
        }
        state.lent += bytes;
        Loan {
            budget: self.clone(),
            bytes,
        }
    }
}

/// Bytes of memory of this machine, or of the control group that holds the process.
pub fn physical_memory() -> Option<usize> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
    let kibibytes: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|g| g.trim().parse().ok());
    Some((kibibytes << 10).min(group.unwrap_or(usize::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Kept(Mutex<Vec<Loan>>);

    impl Idle for Kept {
        fn release(&self) {
            self.0.lock().unwrap().clear();
        }
    }

    #[test]
    fn idle_memory_makes_room_and_busy_memory_is_waited_for() {
        let budget = Arc::new(Budget::new(100));
        let kept = Arc::new(Kept(Mutex::default()));
        let weak: Weak<Kept> = Arc::downgrade(&kept);
        budget.register(weak);
        kept.0.lock().unwrap().push(budget.take(60));
        let large = budget.take(90);
        assert!(kept.0.lock().unwrap().is_empty(), "driven out");
        let busy = std::sync::atomic::AtomicBool::new(true);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let _second = budget.take(50);
                assert!(!busy.load(std::sync::atomic::Ordering::SeqCst));
            });
            busy.store(false, std::sync::atomic::Ordering::SeqCst);
            drop(large);
            waiting.join().unwrap();
        });
        assert_eq!(budget.state().lent, 0);
        // what exceeds the limit alone is lent to one at a time
        assert_eq!(budget.take(1000).bytes, 1000);
    }

    /// A program whose owner goes while its memory is given back: then whoever asked
    /// for memory holds it last.
    struct Going {
        owner: Mutex<Option<Arc<Going>>>,
        _busy: Loan,
    }

    impl Idle for Going {
        fn release(&self) {
            drop(self.owner.lock().unwrap().take());
        }
    }

    #[test]
    fn programs_may_go_while_their_memory_is_given_back() {
        let budget = Arc::new(Budget::new(100));
        let going = Arc::new(Going {
            owner: Mutex::default(),
            _busy: budget.take(60),
        });
        let weak: Weak<Going> = Arc::downgrade(&going);
        budget.register(weak.clone());
        *going.owner.lock().unwrap() = Some(going.clone());
        drop(going);
        let (done, wait) = std::sync::mpsc::channel();
        let asking = budget.clone();
        std::thread::spawn(move || {
            let bytes = asking.take(90).bytes;
            // nobody listens any more if this comes too late
            let _ = done.send(bytes);
        });
        // A lock taken twice never ends; nothing else takes a minute.
        let minute = Duration::from_secs(60);
        let bytes = wait.recv_timeout(minute).expect("no deadlock");
        assert_eq!(bytes, 90);
        assert_eq!(weak.strong_count(), 0, "gone");
    }
}

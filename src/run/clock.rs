//! Processor time, for measurements on machines that are not idle.

use std::time::Duration;

#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
mod system {
    /// The C library's `struct timespec`.
    #[repr(C)]
    pub struct Timespec {
        pub seconds: i64,
        pub nanoseconds: i64,
    }
    /// `CLOCK_PROCESS_CPUTIME_ID`
    pub const PROCESS_CPU_TIME: i32 = 2;
    unsafe extern "C" {
        pub fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
}

/// Processor time this process has used so far, all threads together; elapsed
/// time where the system offers no such clock.
pub fn processor_time() -> Duration {
    #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
    {
        let mut t = system::Timespec {
            seconds: 0,
            nanoseconds: 0,
        };
        // SAFETY: a valid clock and a place for its value.
        if unsafe { system::clock_gettime(system::PROCESS_CPU_TIME, &mut t) } == 0 {
            return Duration::new(t.seconds as u64, t.nanoseconds as u32);
        }
    }
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_is_used_by_work() {
        let start = super::processor_time();
        let mut x = 0u64;
        while super::processor_time() < start + std::time::Duration::from_millis(2) {
            x = std::hint::black_box(x + 1);
        }
        assert!(x > 0);
    }
}

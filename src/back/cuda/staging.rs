//! Host memory through which everything goes to a GPU.
//!
//! The driver may read what an asynchronous copy is given after the call has returned, and
//! may wait for the stream first where that memory is pageable. So the bytes are put into
//! page-locked memory of our own, where they stay until the copy is done.

use super::device::DeviceError;
use super::found::check;
use cudarc::driver::sys;
use std::collections::VecDeque;
use std::ffi::c_uint;
use std::ptr;

/// Bytes of a stream's ring.
const RING: usize = 8 << 20;

/// Most bytes of one copy: while a piece is on its way the next one is filled.
const PIECE: usize = 2 << 20;

/// Most copies on their way at once.
const COPIES: usize = 64;

/// What is on its way to a GPU on one stream. It lives as long as the process.
#[derive(Default)]
pub(super) struct Staging {
    /// The address of the ring, once something was copied.
    memory: Option<usize>,
    ring: Ring,
    /// Events nobody waits for.
    idle: Vec<usize>,
}

impl Staging {
    /// Copies to an address of the GPU, after all else the stream was asked for. The bytes
    /// are free on return. The context is that of the calling thread.
    pub(super) fn upload(
        &mut self,
        stream: sys::CUstream,
        bytes: &[u8],
        to: u64,
    ) -> Result<(), DeviceError> {
        let ring = *self.memory.get_or_insert_with(page_locked);
        for (k, piece) in bytes.chunks(PIECE).enumerate() {
            let at = ring + self.room(piece.len())?;
            let event = self.event()?;
            let to = to + (k * PIECE) as u64;
            // SAFETY: this part of the ring is in no copy, and will be in none but this
            // one before the event has passed.
            let copied = unsafe {
                ptr::copy_nonoverlapping(piece.as_ptr(), at as *mut u8, piece.len());
                let asked = sys::cuMemcpyHtoDAsync_v2(to, at as *const _, piece.len(), stream);
                check("copying to the GPU", asked).and_then(|()| {
                    let marked = sys::cuEventRecord(event as sys::CUevent, stream);
                    check("copying to the GPU", marked).inspect_err(|_| {
                        sys::cuStreamSynchronize(stream);
                    })
                })
            };
            copied?;
            self.ring.fill(at - ring, piece.len(), event);
        }
        Ok(())
    }

    /// A part of the ring that no copy reads any more.
    fn room(&mut self, bytes: usize) -> Result<usize, DeviceError> {
        let (at, busy) = self.ring.place(bytes);
        for event in busy {
            // SAFETY: an event of ours.
            let status = unsafe { sys::cuEventSynchronize(event as sys::CUevent) };
            self.idle.push(event);
            check("copying to the GPU", status)?;
        }
        Ok(at)
    }

    fn event(&mut self) -> Result<usize, DeviceError> {
        if let Some(event) = self.idle.pop() {
            return Ok(event);
        }
        let mut event = ptr::null_mut();
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint;
        // SAFETY: a plain call.
        let status = unsafe { sys::cuEventCreate(&mut event, flags) };
        check("copying to the GPU", status)?;
        Ok(event as usize)
    }
}

/// Memory for a ring: pageable where the system locks none, which is slower.
fn page_locked() -> usize {
    let mut memory = ptr::null_mut();
    // SAFETY: a plain call.
    let status = unsafe { sys::cuMemHostAlloc(&mut memory, RING, 0) };
    match status {
        sys::CUresult::CUDA_SUCCESS => memory as usize,
        _ => vec![0u8; RING].leak().as_mut_ptr() as usize,
    }
}

/// Parts of a ring in the order in which they were filled, with events that pass when they
/// have been read.
#[derive(Default)]
struct Ring {
    /// Where the next part begins.
    next: usize,
    filled: VecDeque<(usize, usize, usize)>,
}

impl Ring {
    /// A place for so many bytes, at most [`PIECE`], and the events to wait for.
    fn place(&mut self, bytes: usize) -> (usize, Vec<usize>) {
        let at = if self.next + bytes > RING {
            0
        } else {
            self.next
        };
        let overlaps =
            |&(first, length, _): &(usize, usize, usize)| first < at + bytes && at < first + length;
        // those before the last one that overlaps are older, and were read before it
        let count = self.filled.iter().rposition(overlaps).map_or(0, |k| k + 1);
        let count = count.max((self.filled.len() + 1).saturating_sub(COPIES));
        let events = self.filled.drain(..count).map(|(_, _, event)| event);
        (at, events.collect())
    }

    /// Notes that a place is filled.
    fn fill(&mut self, at: usize, bytes: usize, event: usize) {
        self.filled.push_back((at, bytes, event));
        self.next = (at + bytes).next_multiple_of(64);
    }
}

#[cfg(test)]
mod tests {
    use super::{COPIES, RING, Ring};
    use std::collections::HashMap;

    #[test]
    fn no_place_is_filled_before_it_was_read() {
        let mut ring = Ring::default();
        let mut unread: HashMap<usize, std::ops::Range<usize>> = HashMap::new();
        let mut state = 1u64;
        let (mut waited, mut most) = (0, 0);
        for event in 0..3000 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            // sizes of every order of magnitude
            let limit = 1usize << ((state >> 33) % 22);
            let bytes = 1 + (state >> 40) as usize % limit;
            let (at, events) = ring.place(bytes);
            assert!(at + bytes <= RING, "{at} + {bytes}");
            waited += events.len();
            unread.retain(|e, _| !events.contains(e));
            let own = at..at + bytes;
            let free = unread
                .values()
                .all(|r| r.end <= own.start || own.end <= r.start);
            assert!(free, "{own:?} is in use");
            ring.fill(at, bytes, event);
            unread.insert(event, own);
            most = most.max(unread.len());
        }
        assert!(
            waited > 2000,
            "the ring was filled again and again: {waited}"
        );
        assert_eq!(most, COPIES);
    }
}

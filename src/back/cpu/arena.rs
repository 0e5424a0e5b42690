//! Aligned memory and the assignment of buffers to it.

use crate::kernel::Program;
use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

/// From this size on memory is mapped on its own, in huge pages where the system has
/// them: many rows are read side by side, and on small pages the translation of
/// addresses takes as long as the reading.
const LARGE: usize = 4 << 20;

/// Zeroed memory aligned to cache lines.
pub struct Memory {
    start: NonNull<u8>,
    layout: Layout,
    /// What holds it if it is large.
    mapped: Option<MmapMut>,
}

// Plain bytes.
unsafe impl Send for Memory {}
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` zero bytes.
    pub fn new(bytes: usize) -> Memory {
        let layout =
            Layout::from_size_align(bytes.max(64), 64).expect("a size the machine can address");
        let mut mapped = (bytes >= LARGE).then(|| huge_pages(bytes)).flatten();
        let start = match &mut mapped {
            Some(pages) => pages.as_mut_ptr(),
            // SAFETY: the size is not zero.
            None => unsafe { alloc_zeroed(layout) },
        };
        match NonNull::new(start) {
            Some(start) => Memory {
                start,
                layout,
                mapped,
            },
            None => handle_alloc_error(layout),
        }
    }
    /// Numbers in a row.
    pub fn of<T: Copy>(numbers: &[T]) -> Memory {
        let bytes = size_of_val(numbers);
        let mut memory = Memory::new(bytes);
        // SAFETY: plain numbers, and room for them.
        unsafe {
            let from = numbers.as_ptr().cast::<u8>();
            memory.as_mut_ptr().copy_from_nonoverlapping(from, bytes);
        }
        memory
    }
    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.layout.size()
    }
    /// Never: there is always a cache line.
    pub fn is_empty(&self) -> bool {
        false
    }
    /// First byte.
    pub fn as_ptr(&self) -> *const u8 {
        self.start.as_ptr()
    }
    /// First byte.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }
}

/// Zeroed pages, huge ones if possible; `None`: the allocator will do as well.
fn huge_pages(bytes: usize) -> Option<MmapMut> {
    let pages = MmapMut::map_anon(bytes).ok()?;
    // only a hint
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::HugePage);
    Some(pages)
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.mapped.is_none() {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.start.as_ptr(), self.layout) }
        }
    }
}

/// Where every buffer of a program lies.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Byte offset of each buffer.
    pub offsets: Vec<usize>,
    /// Bytes in all.
    pub size: usize,
}

impl Assignment {
    /// First fit over the lifetimes of the buffers; `bytes(b)` is the size of
    /// buffer b, a multiple of 64. Host-written buffers and outputs live throughout.
    pub fn new(program: &Program, margin: usize, bytes: impl Fn(usize) -> usize) -> Assignment {
        let n = program.buffers.len();
        let mut life: Vec<(usize, usize)> = vec![(usize::MAX, 0); n];
        for (time, step) in program.steps.iter().enumerate() {
            let mut touched = Vec::new();
            let mut also = Vec::new();
            step.visit(&mut |r| touched.push(r), &mut |r| also.push(r));
            for r in touched.into_iter().chain(also) {
                let life = &mut life[r.buffer.0 as usize];
                *life = (life.0.min(time), life.1.max(time));
            }
        }
        for r in &program.site_outputs {
            life[r.buffer.0 as usize].1 = usize::MAX;
        }
        for c in &program.outputs {
            if let crate::kernel::Cell::Row(r) = c {
                life[r.buffer.0 as usize].1 = usize::MAX;
            }
        }
        for (b, life) in program.buffers.iter().zip(&mut life) {
            if b.external {
                *life = (0, usize::MAX);
            }
        }
        let mut order: Vec<usize> = (0..n).filter(|&b| life[b].0 != usize::MAX).collect();
        order.sort_by_key(|&b| (life[b].0, std::cmp::Reverse(bytes(b))));
        let mut offsets = vec![margin; n];
        let mut live: Vec<usize> = Vec::new();
        let mut size = margin;
        for b in order {
            live.retain(|&o| life[o].1 >= life[b].0);
            live.sort_by_key(|&o| offsets[o]);
            let mut at = margin;
            for &o in &live {
                if offsets[o] >= at + bytes(b) {
                    break;
                }
                at = at.max(offsets[o] + bytes(o));
            }
            offsets[b] = at;
            size = size.max(at + bytes(b));
            live.push(b);
        }
        Assignment {
            offsets,
            size: size + margin,
        }
    }
}

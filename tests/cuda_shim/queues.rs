//! When a device does what it is asked for.
//!
//! A GPU does it later, and streams in any order that the events between them allow.
//! Here nothing is done before somebody waits for it, and then in an order chosen to
//! do harm: what lacks an event, or is given back too early, gives other numbers.

use super::races::Races;
use dnet::back::cuda::device::{DeviceError, Span, Stream};
use std::collections::{HashMap, HashSet, VecDeque};

/// When things are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// As soon as they are asked for; memory that is given back is gone.
    AtOnce,
    /// When somebody waits for them, and nothing else.
    Late,
    /// When somebody waits for anything, those of other streams first.
    OthersFirst,
    /// When somebody waits for anything, streams in random order.
    Random(u64),
}

impl When {
    /// All of them but the first.
    pub const LATER: [When; 4] = [
        When::Late,
        When::OthersFirst,
        When::Random(1),
        When::Random(2),
    ];
}

/// A piece of work.
pub enum Op {
    /// Runs a kernel.
    Launch(Box<dyn FnOnce() -> Result<(), DeviceError> + Send>),
    /// Copies bytes to memory.
    Upload(Span, Vec<u8>),
    /// Fills memory with what is no number.
    Spoil(Span),
    /// Something others wait for.
    Event(u64),
    /// Waits for it.
    Wait(u64, Stream),
}

/// What a device was asked for, and its memory.
pub struct Queues {
    when: When,
    streams: [VecDeque<Op>; Stream::COUNT],
    /// Kernels every stream was asked for.
    launches: [usize; Stream::COUNT],
    /// Events that came to pass, and the number of the next one.
    passed: HashSet<u64>,
    events: u64,
    random: u64,
    failure: Option<DeviceError>,
    /// Words behind every address, and the stream they belong to.
    memory: HashMap<u64, (Stream, Vec<u64>)>,
    /// Given back, by stream and words: handed out again, the last one first.
    idle: HashMap<(Stream, usize), Vec<u64>>,
    /// Who wrote it, and whether kernels are watched.
    races: Races,
    pub watched: bool,
}

impl Queues {
    /// With nothing to do.
    pub fn new(when: When) -> Queues {
        let random = match when {
            When::Random(seed) => seed,
            _ => 0,
        };
        Queues {
            when,
            streams: Default::default(),
            launches: [0; Stream::COUNT],
            passed: HashSet::new(),
            events: 0,
            random,
            failure: None,
            memory: HashMap::new(),
            idle: HashMap::new(),
            races: Races::new(),
            watched: true,
        }
    }

    /// Kernels every stream was asked for.
    pub fn launches(&self) -> [usize; Stream::COUNT] {
        self.launches
    }

    /// Asks for a piece of work.
    pub fn ask(&mut self, stream: Stream, op: Op) -> Result<(), DeviceError> {
        self.launches[stream.number()] += usize::from(matches!(op, Op::Launch(_)));
        if self.when == When::AtOnce {
            return self.perform(op);
        }
        self.streams[stream.number()].push_back(op);
        Ok(())
    }

    /// What `later` is asked for from now on waits for what `earlier` was asked for.
    pub fn order(&mut self, earlier: Stream, later: Stream) -> Result<(), DeviceError> {
        self.events += 1;
        self.ask(earlier, Op::Event(self.events))?;
        self.ask(later, Op::Wait(self.events, earlier))
    }

    /// Does everything a stream was asked for, and what that depends on.
    pub fn wait(&mut self, stream: Stream) -> Result<(), DeviceError> {
        if self.when == When::OthersFirst {
            for k in 0..Stream::COUNT {
                let other = Stream::in_turn(k);
                while other != stream && !self.streams[k].is_empty() {
                    self.advance(other);
                }
            }
        }
        while !self.streams[stream.number()].is_empty() {
            let next = match self.when {
                When::Random(_) => self.any(),
                _ => stream,
            };
            if !self.streams[next.number()].is_empty() {
                self.advance(next);
            }
        }
        self.failure.take().map_or(Ok(()), Err)
    }

    /// Some stream.
    fn any(&mut self) -> Stream {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005);
        self.random = self.random.wrapping_add(1_442_695_040_888_963_407);
        Stream::in_turn((self.random >> 40) as usize)
    }

    /// Does the next thing a stream was asked for, after what it waits for.
    fn advance(&mut self, stream: Stream) {
        let Some(op) = self.streams[stream.number()].pop_front() else {
            return;
        };
        if let Op::Wait(event, of) = op {
            while !self.passed.contains(&event) {
                self.advance(of);
            }
        } else if let Err(e) = self.perform(op) {
            self.failure.get_or_insert(e);
        }
    }

    fn perform(&mut self, op: Op) -> Result<(), DeviceError> {
        match op {
            Op::Launch(run) => {
                self.races.enter(self.watched);
                run()?;
            }
            Op::Upload(to, bytes) => {
                // SAFETY: memory allocated below.
                unsafe {
                    let to = to.address as *mut u8;
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
                }
                self.races.set(to.range(0..bytes.len()), true);
            }
            Op::Spoil(span) => {
                // SAFETY: memory allocated below, whole words of it.
                unsafe { std::ptr::write_bytes(span.address as *mut u8, 0xff, span.bytes) }
                self.races.set(span, false);
            }
            Op::Event(event) => {
                self.passed.insert(event);
            }
            Op::Wait(..) => {}
        }
        Ok(())
    }

    /// New memory, or some that was given back.
    pub fn allocate(&mut self, stream: Stream, bytes: usize) -> u64 {
        let length = bytes.div_ceil(8);
        let idle = self.idle.get_mut(&(stream, length));
        if let Some(address) = idle.and_then(Vec::pop) {
            return address;
        }
        // NaN in both precisions: what nobody wrote shows
        let words = vec![u64::MAX; length];
        let address = words.as_ptr() as u64;
        self.memory.insert(address, (stream, words));
        let bytes = 8 * length;
        self.races.allocated(Span { address, bytes });
        address
    }

    /// Takes memory back: it is spoiled in the order of its stream.
    pub fn release(&mut self, address: u64) {
        if self.when == When::AtOnce {
            self.memory.remove(&address).expect("allocated here");
            self.races.released(address);
            return;
        }
        let (stream, words) = self.memory.get(&address).expect("allocated here");
        let (stream, length) = (*stream, words.len());
        let bytes = 8 * length;
        self.streams[stream.number()].push_back(Op::Spoil(Span { address, bytes }));
        self.idle.entry((stream, length)).or_default().push(address);
    }
}

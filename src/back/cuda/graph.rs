//! Launches of a GPU put together: CUDA graphs.

use super::device::{DeviceError, OneByOne, Recording, Step, Stream};
use super::driver::Streams;
use super::found::check;
use cudarc::driver::sys;
use std::ptr;
use std::sync::{Arc, Mutex};

/// Launches that are made one by one the first time, which also loads their kernels,
/// and as one graph from then on. Where no graph can be made they stay one by one.
pub(super) struct Graph {
    streams: Arc<Streams>,
    steps: OneByOne,
    state: Mutex<State>,
}

enum State {
    /// Not made before.
    New,
    /// Made before, one by one.
    Made,
    /// `CUgraphExec`.
    Ready(usize),
    /// No graph.
    Never,
}

impl Graph {
    pub(super) fn new(streams: Arc<Streams>, steps: Vec<Step>) -> Graph {
        Graph {
            streams,
            steps: OneByOne(steps),
            state: Mutex::new(State::New),
        }
    }

    /// Records the launches as a graph, without making them.
    fn captured(&self) -> Result<usize, DeviceError> {
        self.streams.enter()?;
        let recorder = self.streams.recorder();
        let stream = *recorder as sys::CUstream;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        let mut graph = ptr::null_mut();
        // SAFETY: the stream is ours alone while it is locked; a capture that began is
        // ended, and a graph that was made is destroyed.
        unsafe {
            check(
                "beginning a graph",
                sys::cuStreamBeginCapture_v2(stream, mode),
            )?;
            let launch = |s: &Step| {
                let Step {
                    kernel,
                    blocks,
                    arguments,
                    ..
                } = s;
                s.module
                    .launch_recorded(*recorder, kernel, *blocks, arguments)
            };
            let launched = self.steps.0.iter().try_for_each(launch);
            let ended = sys::cuStreamEndCapture(stream, &mut graph);
            let made = launched
                .and_then(|()| check("ending a graph", ended))
                .and_then(|()| {
                    let mut ready = ptr::null_mut();
                    let status = sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0);
                    check("preparing a graph", status).map(|()| ready as usize)
                });
            if !graph.is_null() {
                sys::cuGraphDestroy(graph);
            }
            made
        }
    }
}

impl Recording for Graph {
    fn replay(&self, stream: Stream) -> Result<(), DeviceError> {
        // a graph is launched by one thread at a time
        let mut state = self.state.lock().unwrap_or_else(|e| e.into_inner());
        if let State::Made = *state {
            *state = match self.captured() {
                Ok(ready) => State::Ready(ready),
                Err(e) => {
                    tracing::warn!("the GPU's launches are made one by one: {e}");
                    State::Never
                }
            };
        }
        match *state {
            State::Ready(ready) => {
                self.streams.enter()?;
                let stream = self.streams.handle(stream);
                // SAFETY: prepared above, and not destroyed before this is dropped.
                let status = unsafe { sys::cuGraphLaunch(ready as sys::CUgraphExec, stream) };
                check("launching a graph", status)
            }
            State::New => {
                *state = State::Made;
                self.steps.replay(stream)
            }
            State::Made | State::Never => self.steps.replay(stream),
        }
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|e| e.into_inner());
        if let State::Ready(ready) = *state
            && self.streams.enter().is_ok()
        {
            // SAFETY: prepared above; one that still runs is destroyed when it ends.
            unsafe { sys::cuGraphExecDestroy(ready as sys::CUgraphExec) };
        }
    }
}

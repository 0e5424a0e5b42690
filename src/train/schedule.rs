//! Schedules as written in run files.

use crate::vmc::optim::Schedule;
use serde::de::{Deserializer, Error, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A plain number, or a schedule such as
/// `{ linear = { from = 1e-2, to = 1e-4, over = 300 } }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ScheduleSpec {
    /// A number; what it means is the key's affair.
    Number(f64),
    /// A schedule.
    Schedule(Schedule),
}

// By hand: an untagged enum cannot say which key of a table is wrong.
impl<'de> Deserialize<'de> for ScheduleSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Spec;
        impl<'de> Visitor<'de> for Spec {
            type Value = ScheduleSpec;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number or a schedule like { constant = 0.02 }")
            }
            fn visit_f64<E: Error>(self, value: f64) -> Result<ScheduleSpec, E> {
                Ok(ScheduleSpec::Number(value))
            }
            fn visit_i64<E: Error>(self, value: i64) -> Result<ScheduleSpec, E> {
                Ok(ScheduleSpec::Number(value as f64))
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<ScheduleSpec, E> {
                Ok(ScheduleSpec::Number(value as f64))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ScheduleSpec, A::Error> {
                Schedule::deserialize(MapAccessDeserializer::new(map)).map(ScheduleSpec::Schedule)
            }
        }
        deserializer.deserialize_any(Spec)
    }
}

impl ScheduleSpec {
    /// The schedule; `number` says what a plain number means.
    pub fn resolve(self, number: impl FnOnce(f64) -> Schedule) -> Schedule {
        match self {
            ScheduleSpec::Number(value) => number(value),
            ScheduleSpec::Schedule(schedule) => schedule,
        }
    }
}

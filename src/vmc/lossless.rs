//! Lossless text forms for checkpoints: `serde(with = ...)` modules.
//!
//! JSON parsers round floating-point numbers and cannot write NaN; a resumed
//! run has to continue with exactly the same bits.

/// `Vec<f64>` as one string of 16 hexadecimal digits per number (IEEE bits).
pub mod floats {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::fmt::Write;

    /// Writes the bits.
    pub fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(16 * values.len());
        for value in values {
            // Writing to a string cannot fail.
            let _ = write!(text, "{:016x}", value.to_bits());
        }
        serializer.serialize_str(&text)
    }

    /// Reads them back; anything but groups of 16 hexadecimal digits is an error.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !text.is_ascii() || !text.len().is_multiple_of(16) {
            return Err(D::Error::custom(
                "numbers must be groups of 16 hexadecimal digits",
            ));
        }
        (0..text.len() / 16)
            .map(|i| {
                u64::from_str_radix(&text[16 * i..16 * (i + 1)], 16)
                    .map(f64::from_bits)
                    .map_err(D::Error::custom)
            })
            .collect()
    }
}

/// Spins (`Vec<i8>` of +-1) as a string of `+` and `-`.
pub mod spins {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// One character per spin.
    pub fn serialize<S: Serializer>(spins: &[i8], serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = spins
            .iter()
            .map(|&s| if s > 0 { '+' } else { '-' })
            .collect();
        serializer.serialize_str(&text)
    }

    /// Reads them back; any other character is an error.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<i8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.bytes()
            .map(|b| match b {
                b'+' => Ok(1),
                b'-' => Ok(-1),
                _ => Err(D::Error::custom("spins are written as `+` and `-`")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct State {
        #[serde(with = "super::floats")]
        x: Vec<f64>,
        #[serde(with = "super::spins")]
        s: Vec<i8>,
    }

    #[test]
    fn every_bit_survives() {
        let x = vec![
            0.1 + 0.2,
            -0.0,
            f64::NAN,
            f64::INFINITY,
            f64::MIN_POSITIVE / 3.0,
        ];
        let text = serde_json::to_string(&State {
            x: x.clone(),
            s: vec![1, -1, -1],
        })
        .unwrap();
        let back: State = serde_json::from_str(&text).unwrap();
        let bits = |v: &[f64]| v.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
        assert_eq!((bits(&back.x), back.s), (bits(&x), vec![1, -1, -1]));
    }

    #[test]
    fn damage_is_an_error() {
        for text in [
            r#"{"x":"00","s":""}"#,
            r#"{"x":"zzzzzzzzzzzzzzzz","s":""}"#,
            r#"{"x":"","s":"+0"}"#,
        ] {
            assert!(serde_json::from_str::<State>(text).is_err(), "{text}");
        }
    }
}

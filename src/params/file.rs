//! Parameter files: safetensors whose metadata says what they belong to.

use super::Params;
use crate::check::Program;
use crate::check::core::NetworkInfo;
use crate::interp::Tensor;
use crate::ir::{Boundary, Lattice};
use crate::syntax::ast::LatticeKind;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// What a parameter file belongs to; kept in its header.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Metadata {
    /// Name of the network.
    pub network: String,
    /// The `.dnet` source.
    pub source: String,
    /// Hyperparameters, as JSON.
    pub hyperparameters: String,
    /// Sites and boundary the tensors were made for, `100 periodic`.
    pub lattice: String,
}

impl Metadata {
    /// What parameters of this network on this lattice belong to.
    pub fn new(program: &Program, info: &NetworkInfo, lattice: Lattice) -> Metadata {
        let boundary = match lattice.boundary {
            Boundary::Periodic => "periodic",
            Boundary::Open => "open",
        };
        let extent = match info.lattice {
            LatticeKind::Chain => lattice.extent[0].to_string(),
            LatticeKind::Square => format!("{},{}", lattice.extent[0], lattice.extent[1]),
        };
        Metadata {
            network: info.name.clone(),
            source: program.sources().files[info.file.0 as usize].text.clone(),
            hyperparameters: serde_json::to_string(&info.hyper).unwrap_or_default(),
            lattice: format!("{extent} {boundary}"),
        }
    }

    /// SHA-256 of source, network and hyperparameters, in hexadecimal.
    pub fn hash(&self) -> String {
        let mut h = Sha256::new();
        for part in [&self.network, &self.source, &self.hyperparameters] {
            h.update((part.len() as u64).to_le_bytes());
            h.update(part.as_bytes());
        }
        h.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// Why a parameter file cannot be written or used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading or writing failed.
    #[error("cannot {doing} `{path}`: {error}")]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Not a safetensors file, or one without our header.
    #[error("`{path}` is not a parameter file: {why}")]
    Format {
        /// The file.
        path: String,
        /// What is wrong.
        why: String,
    },
    /// The file belongs to another network.
    #[error("`{path}` does not fit this network:\n{}", .differences.join("\n"))]
    Mismatch {
        /// The file.
        path: String,
        /// One line per difference.
        differences: Vec<String>,
    },
}

/// Writes beside the target, then renames: readers see the old file or the
/// new one, never half of it.
///
/// # Errors
/// Those of the file system; the target is untouched then.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".dnet-").tempfile_in(dir)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    #[cfg(unix)]
    {
        // A temporary file is private; a result is readable like any other.
        use std::os::unix::fs::PermissionsExt;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Saves parameters (f64, little endian) with their metadata. Equal input gives
/// equal bytes.
///
/// # Errors
/// Those of the file system.
pub fn save(path: &Path, params: &Params, metadata: &Metadata) -> Result<(), FileError> {
    let io = |error| FileError::Io {
        doing: "write",
        path: path.display().to_string(),
        error,
    };
    let mut tensors = serde_json::Map::new();
    let mut data: Vec<u8> = vec![];
    let metadata = serde_json::json!({
        "dnet.version": env!("CARGO_PKG_VERSION"),
        "dnet.network": metadata.network,
        "dnet.source": metadata.source,
        "dnet.hyperparameters": metadata.hyperparameters,
        "dnet.lattice": metadata.lattice,
        "dnet.hash": metadata.hash(),
    });
    tensors.insert("__metadata__".to_owned(), metadata);
    for (name, t) in params.paths.iter().zip(&params.tensors) {
        let start = data.len();
        data.extend(t.data.iter().flat_map(|x| x.to_le_bytes()));
        let entry = serde_json::json!({
            "dtype": "F64", "shape": t.shape, "data_offsets": [start, data.len()],
        });
        tensors.insert(name.clone(), entry);
    }
    // Written here, not by the library, whose header follows the order of a hash map:
    // equal parameters make equal files.
    let mut header = serde_json::Value::Object(tensors).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header);
    out.extend(data);
    write_atomically(path, &out).map_err(io)
}

/// What a parameter file says it belongs to; `None` where it does not say so
/// (files of other programs).
///
/// # Errors
/// A file that cannot be read or is no safetensors file.
pub fn metadata(path: &Path) -> Result<Option<Metadata>, FileError> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| FileError::Io {
        doing: "read",
        path: shown.clone(),
        error,
    })?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| FileError::Format {
        path: shown,
        why: e.to_string(),
    })?;
    let header = header.metadata().clone().unwrap_or_default();
    let get = |key: &str| header.get(key).cloned();
    Ok((|| {
        Some(Metadata {
            network: get("dnet.network")?,
            source: get("dnet.source")?,
            hyperparameters: get("dnet.hyperparameters")?,
            lattice: get("dnet.lattice")?,
        })
    })())
}

/// A mapping file: TOML with a table `[parameters]` of `"our path" = "their
/// name"`, in which `*` stands for the same text on both sides.
///
/// # Errors
/// A file that cannot be read or is no such table.
pub fn mapping(path: &Path) -> Result<BTreeMap<String, String>, FileError> {
    let text = std::fs::read_to_string(path).map_err(|error| FileError::Io {
        doing: "read",
        path: path.display().to_string(),
        error,
    })?;
    let format = |why: String| FileError::Format {
        path: path.display().to_string(),
        why,
    };
    let table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| format(e.message().to_owned()))?;
    let entries = table
        .get("parameters")
        .and_then(toml::Value::as_table)
        .ok_or_else(|| format("no table [parameters]".to_owned()))?;
    entries
        .iter()
        .map(|(k, v)| match v.as_str() {
            Some(v) => Ok((k.clone(), v.to_owned())),
            None => Err(format(format!("`{k}` is not a text"))),
        })
        .collect()
}

fn mapped(map: &BTreeMap<String, String>, path: &str) -> String {
    if let Some(theirs) = map.get(path) {
        return theirs.clone();
    }
    for (ours, theirs) in map {
        if let Some((before, after)) = ours.split_once('*')
            && let Some(star) = path
                .strip_prefix(before)
                .and_then(|r| r.strip_suffix(after))
            && !star.contains('/')
        {
            return theirs.replace('*', star);
        }
    }
    path.to_owned()
}

/// Loads parameters into the shapes of `like`. With `expected`, a file whose
/// hash differs is refused and the differences are listed; names and shapes
/// are always checked (shapes up to axes of length one). `map` renames.
///
/// # Errors
/// See [`FileError`].
pub fn load(
    path: &Path,
    like: &Params,
    expected: Option<&Metadata>,
    map: &BTreeMap<String, String>,
) -> Result<Params, FileError> {
    let shown = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| FileError::Io {
        doing: "read",
        path: shown.clone(),
        error,
    })?;
    let format = |why: String| FileError::Format {
        path: shown.clone(),
        why,
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|e| format(e.to_string()))?;
    let mut differences = Vec::new();
    if let Some(want) = expected {
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| format(e.to_string()))?;
        let header = header.metadata().clone().unwrap_or_default();
        let get = |k: &str| header.get(k).cloned();
        if get("dnet.hash").is_none_or(|h| h != want.hash()) {
            let mut compare = |what: &str, key: &str, want: &str| match get(key) {
                Some(have) if have == want => {}
                Some(_) if key == "dnet.source" => {
                    differences.push("  the .dnet source differs".to_owned())
                }
                Some(have) => {
                    differences.push(format!("  {what}: the file has {have}, the network {want}"))
                }
                None => differences.push(format!("  {what}: not recorded in the file")),
            };
            compare("network", "dnet.network", &want.network);
            compare(
                "hyperparameters",
                "dnet.hyperparameters",
                &want.hyperparameters,
            );
            compare("source", "dnet.source", &want.source);
        }
    }
    let mut out = like.clone();
    let mut used = std::collections::HashSet::new();
    for (name, t) in like.paths.iter().zip(&mut out.tensors) {
        let theirs = mapped(map, name);
        match file.tensor(&theirs) {
            Ok(view) => {
                used.insert(theirs.clone());
                let squeeze =
                    |s: &[usize]| s.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
                if squeeze(view.shape()) != squeeze(&t.shape) {
                    differences.push(format!(
                        "  `{name}`: the file has shape {:?}, the network {:?}",
                        view.shape(),
                        t.shape
                    ));
                    continue;
                }
                match decode(&view) {
                    Some(data) if data.iter().all(|x| x.is_finite()) => {
                        *t = Tensor {
                            shape: t.shape.clone(),
                            data,
                        }
                    }
                    Some(_) => differences.push(format!("  `{name}`: contains NaN or infinity")),
                    None => differences.push(format!(
                        "  `{name}`: dtype {:?} is not a float",
                        view.dtype()
                    )),
                }
            }
            Err(_) => differences.push(format!("  `{name}`: missing in the file")),
        }
    }
    for name in file.names() {
        if map.is_empty() && !used.contains(name) {
            differences.push(format!("  `{name}`: not a parameter of the network"));
        }
    }
    if differences.is_empty() {
        Ok(out)
    } else {
        Err(FileError::Mismatch {
            path: shown,
            differences,
        })
    }
}

fn decode(view: &TensorView<'_>) -> Option<Vec<f64>> {
    let bytes = view.data();
    match view.dtype() {
        Dtype::F64 => Some(
            bytes
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().unwrap_or_default()))
                .collect(),
        ),
        Dtype::F32 => Some(
            bytes
                .chunks_exact(4)
                .map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap_or_default())))
                .collect(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parameters_make_equal_files() {
        let params = Params {
            paths: ["z/kernel", "a/bias", "a/\"odd\" name", "empty"]
                .map(String::from)
                .to_vec(),
            tensors: vec![
                Tensor::from_fn(&[2, 3], |k| k as f64 / 7.0),
                Tensor::from_fn(&[], |_| -1.5),
                Tensor::from_fn(&[5], |k| -(k as f64)),
                Tensor::zeros(&[0, 4]),
            ],
        };
        let meta = Metadata {
            network: "n".into(),
            source: "network n() { \u{3b2} }\n".into(),
            hyperparameters: "{\"dim\":4}".into(),
            lattice: "12 periodic".into(),
        };
        let dir = tempfile::tempdir().expect("a directory");
        let files = [0, 1].map(|k| {
            let path = dir.path().join(format!("{k}.safetensors"));
            save(&path, &params, &meta).expect("written");
            path
        });
        let bytes = files.each_ref().map(|f| std::fs::read(f).expect("written"));
        assert_eq!(bytes[0], bytes[1]);
        // Named by the format, in the order of declaration.
        let order: Vec<usize> = ["dnet.version", "dnet.hash", "z/kernel", "a/bias"]
            .iter()
            .map(|name| {
                let at = bytes[0]
                    .windows(name.len())
                    .position(|w| w == name.as_bytes());
                at.unwrap_or_else(|| panic!("{name} is missing"))
            })
            .collect();
        assert!(order.is_sorted(), "{order:?}");
        // The library reads what is written here.
        let read = load(&files[0], &params, Some(&meta), &BTreeMap::new()).expect("reads");
        assert_eq!(read, params);
        assert_eq!(metadata(&files[0]).expect("reads"), Some(meta));
    }
}

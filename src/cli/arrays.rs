//! NumPy files.

use super::common::{CliError, write_atomically};
use npyz::WriterBuilder;
use std::io::{self, Cursor};
use std::path::Path;

/// Configurations from a `.npy` file: spins per configuration, and all spins
/// in one vector. Integer and float dtypes are accepted.
pub fn read_spins(path: &Path) -> Result<(usize, Vec<i8>), CliError> {
    let bytes = std::fs::read(path).map_err(|e| CliError::io("read", path, &e))?;
    let bad = |why: String| {
        CliError::new(
            format!("`{}`: {why}", path.display()),
            "expected a .npy array of +1 and -1, [samples, sites]",
        )
    };
    let open = || npyz::NpyFile::new(&bytes[..]).map_err(|e| bad(e.to_string()));
    let file = open()?;
    let shape: Vec<usize> = file.shape().iter().map(|n| *n as usize).collect();
    let sites = match shape[..] {
        [n] | [_, n] if n > 0 => n,
        _ => return Err(bad(format!("its shape is {shape:?}"))),
    };
    if file.order() != npyz::Order::C && shape.len() > 1 {
        return Err(bad("it is in Fortran order".to_owned()));
    }
    fn all<T: npyz::Deserialize + Into<f64>>(
        file: npyz::NpyFile<&[u8]>,
    ) -> Option<io::Result<Vec<f64>>> {
        let reader = file.try_data::<T>().ok()?;
        Some(reader.map(|x| x.map(Into::into)).collect())
    }
    fn wide(file: npyz::NpyFile<&[u8]>) -> Option<io::Result<Vec<f64>>> {
        let reader = file.try_data::<i64>().ok()?;
        Some(reader.map(|x| x.map(|v| v as f64)).collect())
    }
    type Reader = fn(npyz::NpyFile<&[u8]>) -> Option<io::Result<Vec<f64>>>;
    let readers: [Reader; 6] = [
        all::<i8>, all::<i16>, all::<i32>, wide, all::<f32>, all::<f64>,
    ];
    for read in readers {
        let Some(values) = read(open()?) else {
            continue;
        };
        let values = values.map_err(|e| bad(e.to_string()))?;
        let spins = values.iter().map(|x| match *x {
            1.0 => Ok(1),
            -1.0 => Ok(-1),
            other => Err(bad(format!("it contains {other}"))),
        });
        return Ok((sites, spins.collect::<Result<_, _>>()?));
    }
    Err(bad(format!("its dtype is {:?}", file.dtype())))
}

/// Writes real or complex arrays as a `.npz`.
pub fn write_npz<T: npyz::AutoSerialize>(
    path: &Path,
    arrays: &[(&str, Vec<usize>, Vec<T>)],
) -> Result<(), CliError> {
    let mut bytes = Cursor::new(Vec::new());
    let pack = |bytes: &mut Cursor<Vec<u8>>| -> io::Result<()> {
        let mut npz = npyz::npz::NpzWriter::new(bytes);
        for (name, shape, data) in arrays {
            let shape: Vec<u64> = shape.iter().map(|n| *n as u64).collect();
            let mut writer = npz
                .array(name, Default::default())?
                .default_dtype()
                .shape(&shape)
                .begin_nd()?;
            writer.extend(data)?;
            writer.finish()?;
        }
        Ok(())
    };
    pack(&mut bytes).map_err(|e| CliError::io("write", path, &e))?;
    write_atomically(path, bytes.get_ref())
}

//! The program that fills the tables of another one.

use super::compiled::{CompileError, Compiled};
use super::constants::ConstantError;
use super::lookup::TableData;
use super::simd::Real;
use crate::interp::Tensor;
use crate::ir::NodeId;
use crate::kernel::Tables;
use crate::kernel::shape::dims;
use std::sync::{Mutex, PoisonError};

/// Evaluates the local part of a network in f64.
pub(in crate::back) struct TableProgram {
    compiled: Mutex<Compiled<f64>>,
    /// Per configuration and table pairs (entry, site).
    places: Vec<Vec<Vec<(usize, usize)>>>,
    /// First row of each table's node among the rows on sites.
    first: Vec<usize>,
}

/// The parameters of the local part.
fn theta(tables: &Tables, params: &[Tensor]) -> Vec<f64> {
    let data = |k: &u32| params[*k as usize].data.iter().copied();
    tables.params.iter().flat_map(data).collect()
}

impl TableProgram {
    pub(in crate::back) fn new(
        tables: &Tables,
        params: &[Tensor],
    ) -> Result<TableProgram, CompileError> {
        let nodes: Vec<NodeId> = tables.tables.iter().map(|t| t.node).collect();
        let compiled = Compiled::without_tables(
            tables.graph.clone(),
            tables.lattice,
            &theta(tables, params),
            &nodes,
        )?;
        let count = tables.configurations.len() / tables.lattice.sites();
        let mut places = vec![vec![Vec::new(); nodes.len()]; count];
        for (t, table) in tables.tables.iter().enumerate() {
            for (entry, place) in table.entries.iter().enumerate() {
                if let Some((configuration, site)) = *place {
                    places[configuration as usize][t].push((entry, site as usize));
                }
            }
        }
        let (mut first, mut next) = (Vec::with_capacity(nodes.len()), 0);
        for &node in &nodes {
            first.push(next);
            let shape = dims(tables.lattice, tables.graph.ty(node)).map_err(ConstantError::from)?;
            next += shape.iter().product::<usize>();
        }
        Ok(TableProgram {
            compiled: Mutex::new(compiled),
            places,
            first,
        })
    }

    /// The tables for some parameters of the network, laid out for lookups.
    pub(super) fn values<T: Real>(
        &self,
        tables: &Tables,
        params: &[Tensor],
    ) -> Result<Vec<TableData<T>>, CompileError> {
        let values = self.numbers(tables, params)?;
        let data = |(t, v): (&crate::kernel::Table, &Vec<f64>)| {
            let width = t.elements.len();
            TableData::new(t.entries.len(), width, |e, c| v[e * width + c])
        };
        Ok(tables.tables.iter().zip(&values).map(data).collect())
    }

    /// The tables for some parameters of the network: entry by entry its columns.
    pub(in crate::back) fn numbers(
        &self,
        tables: &Tables,
        params: &[Tensor],
    ) -> Result<Vec<Vec<f64>>, CompileError> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = compiled.prepare(&theta(tables, params))?;
        compiled.install(prepared);
        let mut values: Vec<Vec<f64>> = tables
            .tables
            .iter()
            .map(|t| vec![0.0; t.entries.len() * t.elements.len()])
            .collect();
        let mut places = self.places.iter();
        compiled.evaluate_sites(&tables.configurations, &mut |_, rows| {
            let places = places.next().map_or(&[][..], Vec::as_slice);
            for (t, places) in places.iter().enumerate() {
                let elements = &tables.tables[t].elements;
                for &(entry, site) in places {
                    let values = &mut values[t][entry * elements.len()..];
                    for (value, &e) in values.iter_mut().zip(elements) {
                        *value = rows[self.first[t] + e as usize].at(site);
                    }
                }
            }
        });
        Ok(values)
    }
}

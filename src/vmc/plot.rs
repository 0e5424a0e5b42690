//! SVG plots. Text is left to the viewer's fonts; nothing is needed to build.

use super::log::write_atomically;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (800, 500);

/// How an axis is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// Logarithmically; values that are not positive are left out.
    Log,
}

/// One set of points.
#[derive(Clone, Debug)]
pub struct Curve<'a> {
    /// Name in the legend.
    pub label: &'a str,
    /// `(x, y, error)`; an error of 0 draws no band, values that are not
    /// finite are left out.
    pub points: Vec<(f64, f64, f64)>,
    /// Joined by a line, or marked by dots.
    pub line: bool,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below the horizontal axis.
    pub x_label: &'a str,
    /// Beside the vertical axis.
    pub y_label: &'a str,
    /// Horizontal scale.
    pub x_scale: Scale,
    /// Vertical scale.
    pub y_scale: Scale,
    /// Horizontal reference line and its name, e.g. the exact energy.
    pub reference: Option<(&'a str, f64)>,
    /// The data.
    pub curves: Vec<Curve<'a>>,
}

/// Why there is no plot.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// Nothing that the axes can show.
    #[error("no point of `{0}` can be shown")]
    Empty(String),
    /// The drawing library.
    #[error("the plot could not be drawn: {0}")]
    Draw(String),
    /// The file system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl Figure<'_> {
    /// Writes the figure to `path` (atomically), as SVG.
    ///
    /// # Errors
    /// No showable point, or a file that cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), PlotError> {
        Ok(write_atomically(path, self.svg()?.as_bytes())?)
    }

    /// The figure as SVG text.
    ///
    /// # Errors
    /// No showable point.
    pub fn svg(&self) -> Result<String, PlotError> {
        let shown =
            |value: f64, scale| value.is_finite() && (scale == Scale::Linear || value > 0.0);
        let curves: Vec<Curve> = self
            .curves
            .iter()
            .map(|curve| {
                let keep =
                    |p: &&(f64, f64, f64)| shown(p.0, self.x_scale) && shown(p.1, self.y_scale);
                Curve {
                    points: curve.points.iter().filter(keep).copied().collect(),
                    ..curve.clone()
                }
            })
            .collect();
        let points = || curves.iter().flat_map(|c| &c.points);
        let levels = self
            .reference
            .iter()
            .map(|r| r.1)
            .filter(|y| shown(*y, self.y_scale));
        let x = limits(points().map(|p| p.0), self.x_scale);
        let y = limits(points().map(|p| p.1).chain(levels), self.y_scale);
        let (Some(x), Some(y)) = (x, y) else {
            return Err(PlotError::Empty(self.title.into()));
        };
        let (x_range, y_range) = (x.0..x.1, y.0..y.1);
        let mut svg = String::new();
        match (self.x_scale, self.y_scale) {
            (Scale::Linear, Scale::Linear) => {
                self.draw(&mut svg, &curves, (x, y), x_range, y_range)
            }
            (Scale::Linear, Scale::Log) => {
                self.draw(&mut svg, &curves, (x, y), x_range, y_range.log_scale())
            }
            (Scale::Log, Scale::Linear) => {
                self.draw(&mut svg, &curves, (x, y), x_range.log_scale(), y_range)
            }
            (Scale::Log, Scale::Log) => self.draw(
                &mut svg,
                &curves,
                (x, y),
                x_range.log_scale(),
                y_range.log_scale(),
            ),
        }
        .map_err(|error| PlotError::Draw(error.to_string()))?;
        Ok(svg)
    }

    fn draw<X, Y>(
        &self,
        svg: &mut String,
        curves: &[Curve],
        (x_limits, y_limits): ((f64, f64), (f64, f64)),
        x: X,
        y: Y,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let result = (|| {
            let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
            root.fill(&WHITE).map_err(text)?;
            let mut chart = ChartBuilder::on(&root)
                .caption(self.title, ("sans-serif", 20))
                .margin(12)
                .x_label_area_size(45)
                .y_label_area_size(80)
                .build_cartesian_2d(x, y)
                .map_err(text)?;
            let formatter =
                |scale: Scale, limits: (f64, f64)| move |v: &f64| tick(*v, scale, limits);
            chart
                .configure_mesh()
                .x_desc(self.x_label)
                .y_desc(self.y_label)
                .x_label_formatter(&formatter(self.x_scale, x_limits))
                .y_label_formatter(&formatter(self.y_scale, y_limits))
                .light_line_style(WHITE)
                .draw()
                .map_err(text)?;
            let clamp = |v: f64| v.clamp(y_limits.0, y_limits.1);
            for (index, curve) in curves.iter().enumerate() {
                let color = Palette99::pick(index).to_rgba();
                let banded: Vec<_> = curve
                    .points
                    .iter()
                    .filter(|p| p.2.is_finite() && p.2 > 0.0)
                    .collect();
                if curve.line && banded.len() > 1 {
                    let upper = banded.iter().map(|p| (p.0, clamp(p.1 + p.2)));
                    let lower = banded.iter().rev().map(|p| (p.0, clamp(p.1 - p.2)));
                    let band = Polygon::new(
                        upper.chain(lower).collect::<Vec<_>>(),
                        color.mix(0.2).filled(),
                    );
                    chart.draw_series(std::iter::once(band)).map_err(text)?;
                }
                let series = if curve.line {
                    chart.draw_series(LineSeries::new(
                        curve.points.iter().map(|p| (p.0, p.1)),
                        color.stroke_width(2),
                    ))
                } else {
                    let bars = banded.iter().map(|p| {
                        let ends = vec![(p.0, clamp(p.1 - p.2)), (p.0, clamp(p.1 + p.2))];
                        PathElement::new(ends, color.stroke_width(1))
                    });
                    chart.draw_series(bars).map_err(text)?;
                    chart.draw_series(
                        curve
                            .points
                            .iter()
                            .map(|p| Circle::new((p.0, p.1), 3, color.filled())),
                    )
                };
                series
                    .map_err(text)?
                    .label(curve.label)
                    .legend(move |(x, y)| {
                        PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2))
                    });
            }
            if let Some((name, level)) = self
                .reference
                .filter(|r| (y_limits.0..=y_limits.1).contains(&r.1))
            {
                let ends = [(x_limits.0, level), (x_limits.1, level)];
                chart
                    .draw_series(LineSeries::new(ends, BLACK.stroke_width(1)))
                    .map_err(text)?
                    .label(name)
                    .legend(|(x, y)| {
                        PathElement::new(vec![(x, y), (x + 18, y)], BLACK.stroke_width(1))
                    });
            }
            chart
                .configure_series_labels()
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK.mix(0.3))
                .draw()
                .map_err(text)?;
            root.present().map_err(text)
        })();
        result.map_err(Into::into)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Smallest and largest value, a little apart from the frame.
fn limits(values: impl Iterator<Item = f64>, scale: Scale) -> Option<(f64, f64)> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
        (l.min(v), h.max(v))
    });
    if low > high {
        return None;
    }
    Some(match scale {
        Scale::Log => (low / 1.5, high * 1.5),
        Scale::Linear => {
            let margin = if high > low {
                0.04 * (high - low)
            } else {
                0.1 * low.abs() + 1e-3
            };
            (low - margin, high + margin)
        }
    })
}

/// A tick's label: enough digits to tell neighbours apart.
fn tick(value: f64, scale: Scale, (low, high): (f64, f64)) -> String {
    if scale == Scale::Log {
        return format!("{value:.0e}");
    }
    let digits = (1.0 - ((high - low) / 2.0).log10().floor()).clamp(0.0, 9.0) as usize;
    format!("{value:.digits$}")
}

/// Energy against iteration, with its error band and the exact value if known.
pub fn energy_figure<'a>(
    iters: &[u64],
    mean: &[f64],
    sigma: &[f64],
    exact: Option<f64>,
) -> Figure<'a> {
    let points = iters
        .iter()
        .zip(mean)
        .zip(sigma)
        .map(|((i, m), s)| (*i as f64, *m, *s))
        .collect();
    Figure {
        title: "Energy",
        x_label: "iteration",
        y_label: "total energy",
        x_scale: Scale::Linear,
        y_scale: Scale::Linear,
        reference: exact.map(|e| ("exact", e)),
        curves: vec![Curve {
            label: "energy and standard error",
            points,
            line: true,
        }],
    }
}

/// `|E - E0| / |E0|` against iteration, logarithmic, with its error band.
pub fn relative_error_figure<'a>(
    iters: &[u64],
    mean: &[f64],
    sigma: &[f64],
    exact: f64,
) -> Figure<'a> {
    let relative = |((i, m), s): ((&u64, &f64), &f64)| {
        (*i as f64, ((m - exact) / exact).abs(), (s / exact).abs())
    };
    Figure {
        title: "Relative error of the energy",
        x_label: "iteration",
        y_label: "|E - E0| / |E0|",
        x_scale: Scale::Linear,
        y_scale: Scale::Log,
        reference: None,
        curves: vec![Curve {
            label: "sampled energy and standard error",
            points: iters.iter().zip(mean).zip(sigma).map(relative).collect(),
            line: true,
        }],
    }
}

/// Correlations against distance, both axes logarithmic: `(r, C(r), error)`.
pub fn correlation_figure<'a>(points: Vec<(f64, f64, f64)>) -> Figure<'a> {
    Figure {
        title: "Spin correlations",
        x_label: "distance r",
        y_label: "C(r) = <Z_i Z_(i+r)>",
        x_scale: Scale::Log,
        y_scale: Scale::Log,
        reference: None,
        curves: vec![Curve {
            label: "C(r)",
            points,
            line: false,
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_name_their_axes_and_show_their_data() {
        let iters: Vec<u64> = (0..50).collect();
        let mean: Vec<f64> = iters
            .iter()
            .map(|i| -12.8 + (-(*i as f64) / 8.0).exp())
            .collect();
        let sigma = vec![0.01; 50];
        let energy = energy_figure(&iters, &mean, &sigma, Some(-12.8))
            .svg()
            .unwrap();
        for part in [
            "iteration",
            "total energy",
            "standard error",
            "exact",
            "<polyline",
            "<polygon",
        ] {
            assert!(energy.contains(part), "no {part}");
        }
        let error = relative_error_figure(&iters, &mean, &sigma, -12.8)
            .svg()
            .unwrap();
        assert!(error.contains("|E - E0| / |E0|") && error.contains("1e-3"));
        let correlations = (1..20)
            .map(|r| (f64::from(r), f64::from(r).powf(-0.25), 0.01))
            .collect();
        let svg = correlation_figure(correlations).svg().unwrap();
        assert_eq!(svg.matches("<circle").count(), 19);
    }

    #[test]
    fn points_no_axis_can_show_are_left_out() {
        let points = vec![
            (1.0, 0.5, 0.0),
            (2.0, -0.1, 0.0),
            (3.0, f64::NAN, 0.0),
            (4.0, 0.1, f64::NAN),
        ];
        assert_eq!(
            correlation_figure(points)
                .svg()
                .unwrap()
                .matches("<circle")
                .count(),
            2
        );
        let nothing = correlation_figure(vec![(1.0, -1.0, 0.0)]).svg();
        assert!(matches!(nothing, Err(PlotError::Empty(_))));
        let one = energy_figure(&[0], &[-1.0], &[f64::NAN], None).svg();
        assert!(one.is_ok());
    }

    #[test]
    fn a_file_is_written_or_an_error_returned() {
        let dir = tempfile::tempdir().unwrap();
        let figure = energy_figure(&[0, 1], &[-1.0, -2.0], &[0.1, 0.1], None);
        let path = dir.path().join("energy.svg");
        figure.write(&path).unwrap();
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .trim_end()
                .ends_with("</svg>")
        );
        assert!(matches!(
            figure.write(&dir.path().join("no/energy.svg")),
            Err(PlotError::Io(_))
        ));
    }
}

//! Elementwise functions of complex values, as functions of their parts.

use super::{Lowering, Parts, real};
use crate::check::core::{Binary, Unary};
use crate::ir::{MapFn, NodeId, ZipFn};

impl Lowering {
    pub(super) fn unary(&mut self, f: Unary, x: Parts) -> Parts {
        let Some(im) = x.im else {
            let g = match f {
                Unary::Re | Unary::Conj => return x,
                Unary::Im => return real(self.zeros_like(x.re)),
                Unary::Neg => MapFn::Neg,
                Unary::Exp => MapFn::Exp,
                Unary::Log => MapFn::Log,
                Unary::Log1p => MapFn::Log1p,
                Unary::Sqrt => MapFn::Sqrt,
                Unary::Sin => MapFn::Sin,
                Unary::Cos => MapFn::Cos,
                Unary::Tanh => MapFn::Tanh,
                Unary::LogCosh => MapFn::LogCosh,
                Unary::Abs => MapFn::Abs,
                Unary::Sign => MapFn::Sign,
                Unary::Erf => MapFn::Erf,
                Unary::Floor => MapFn::Floor,
            };
            return real(self.map(g, x.re));
        };
        match f {
            Unary::Re => real(x.re),
            Unary::Im => real(im),
            Unary::Conj => Parts {
                re: x.re,
                im: Some(self.map(MapFn::Neg, im)),
            },
            Unary::Neg => Parts {
                re: self.map(MapFn::Neg, x.re),
                im: Some(self.map(MapFn::Neg, im)),
            },
            Unary::Exp => {
                let r = self.map(MapFn::Exp, x.re);
                let (c, s) = (self.map(MapFn::Cos, im), self.map(MapFn::Sin, im));
                Parts {
                    re: self.zip(ZipFn::Mul, r, c),
                    im: Some(self.zip(ZipFn::Mul, r, s)),
                }
            }
            Unary::Log => {
                let n = self.norm2(x.re, im);
                let l = self.map(MapFn::Log, n);
                Parts {
                    re: self.scaled(0.5, l),
                    im: Some(self.zip(ZipFn::Atan2, im, x.re)),
                }
            }
            Unary::Abs => {
                let n = self.norm2(x.re, im);
                real(self.map(MapFn::Sqrt, n))
            }
            Unary::Tanh | Unary::LogCosh => {
                // With s = 1 / cosh 2x and d = 1 + s cos 2y:
                // tanh = (tanh 2x + i s sin 2y) / d,
                // Re log cosh = (log cosh 2x + log d - log 2) / 2; stable for any x.
                let x2 = self.scaled(2.0, x.re);
                let y2 = self.scaled(2.0, im);
                let l = self.map(MapFn::LogCosh, x2);
                let minus = self.map(MapFn::Neg, l);
                let s = self.map(MapFn::Exp, minus);
                let c = self.map(MapFn::Cos, y2);
                let sc = self.zip(ZipFn::Mul, s, c);
                if f == Unary::Tanh {
                    let one = self.number(1.0);
                    let d = self.zip(ZipFn::Add, sc, one);
                    let t = self.map(MapFn::Tanh, x2);
                    let sin = self.map(MapFn::Sin, y2);
                    let ss = self.zip(ZipFn::Mul, s, sin);
                    Parts {
                        re: self.zip(ZipFn::Div, t, d),
                        im: Some(self.zip(ZipFn::Div, ss, d)),
                    }
                } else {
                    let ld = self.map(MapFn::Log1p, sc);
                    let sum = self.zip(ZipFn::Add, l, ld);
                    let log2 = self.number(std::f64::consts::LN_2);
                    let sum = self.zip(ZipFn::Sub, sum, log2);
                    let t = self.map(MapFn::Tanh, x.re);
                    let (cos, sin) = (self.map(MapFn::Cos, im), self.map(MapFn::Sin, im));
                    let ts = self.zip(ZipFn::Mul, t, sin);
                    Parts {
                        re: self.scaled(0.5, sum),
                        im: Some(self.zip(ZipFn::Atan2, ts, cos)),
                    }
                }
            }
            // The checker admits no other function of complex values.
            _ => Parts {
                re: x.re,
                im: Some(im),
            },
        }
    }

    fn norm2(&mut self, re: NodeId, im: NodeId) -> NodeId {
        let a = self.zip(ZipFn::Mul, re, re);
        let b = self.zip(ZipFn::Mul, im, im);
        self.zip(ZipFn::Add, a, b)
    }

    pub(super) fn binary(&mut self, f: Binary, a: Parts, b: Parts) -> Parts {
        let g = match f {
            Binary::Add => ZipFn::Add,
            Binary::Sub => ZipFn::Sub,
            Binary::Mul => ZipFn::Mul,
            Binary::Div => ZipFn::Div,
            Binary::Pow => ZipFn::Pow,
            Binary::Max => ZipFn::Max,
            Binary::Min => ZipFn::Min,
            Binary::Atan2 => ZipFn::Atan2,
            Binary::Mod => ZipFn::Mod,
        };
        let (Parts { re: ar, im: ai }, Parts { re: br, im: bi }) = (a, b);
        match (f, ai, bi) {
            (_, None, None) => real(self.zip(g, ar, br)),
            (Binary::Add | Binary::Sub, ai, bi) => {
                let re = self.zip(g, ar, br);
                let im = match (ai, bi) {
                    (Some(x), Some(y)) => self.zip(g, x, y),
                    // The real operand may be the larger one: broadcast by adding its zero.
                    (Some(x), None) => self.like(x, re),
                    (None, Some(y)) => {
                        let y = if f == Binary::Sub {
                            self.map(MapFn::Neg, y)
                        } else {
                            y
                        };
                        self.like(y, re)
                    }
                    (None, None) => unreachable!("real operands matched above"),
                };
                Parts { re, im: Some(im) }
            }
            (Binary::Mul, Some(x), None) => Parts {
                re: self.zip(ZipFn::Mul, ar, br),
                im: Some(self.zip(ZipFn::Mul, x, br)),
            },
            (Binary::Mul, None, Some(y)) => Parts {
                re: self.zip(ZipFn::Mul, ar, br),
                im: Some(self.zip(ZipFn::Mul, ar, y)),
            },
            (Binary::Mul, Some(x), Some(y)) => {
                let (rr, ii) = (self.zip(ZipFn::Mul, ar, br), self.zip(ZipFn::Mul, x, y));
                let (ri, ir) = (self.zip(ZipFn::Mul, ar, y), self.zip(ZipFn::Mul, x, br));
                Parts {
                    re: self.zip(ZipFn::Sub, rr, ii),
                    im: Some(self.zip(ZipFn::Add, ri, ir)),
                }
            }
            (Binary::Div, ai, None) => {
                let im = ai.map(|x| self.zip(ZipFn::Div, x, br));
                Parts {
                    re: self.zip(ZipFn::Div, ar, br),
                    im,
                }
            }
            (Binary::Div, _, Some(y)) => {
                let n = self.norm2(br, y);
                let re = self.zip(ZipFn::Div, br, n);
                let minus = self.map(MapFn::Neg, y);
                let im = self.zip(ZipFn::Div, minus, n);
                self.binary(Binary::Mul, a, Parts { re, im: Some(im) })
            }
            // The checker admits no other operation on complex values.
            _ => real(self.zip(g, ar, br)),
        }
    }
}

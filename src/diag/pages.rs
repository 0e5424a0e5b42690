//! The explanation pages, embedded. A missing page fails to compile.

use super::Code;

macro_rules! pages {
    ($($code:ident)*) => {
        /// The explanation of a rule, in Markdown, as `dnetc explain` prints it.
        pub fn page(code: Code) -> &'static str {
            match code {
                $(Code::$code => include_str!(concat!("codes/", stringify!($code), ".md")),)*
            }
        }
    };
}

pages! {
    E0001 E0002 E0003
    E0101 E0102 E0103 E0104 E0105 E0106
    E0201 E0202 E0203 E0204 E0205 E0206 E0207
    E0301 E0302 E0303 E0304 E0305 E0306 E0307
    E0401 E0402
    E0501 E0502 E0503
    W0402
    W0601 W0602 W0603 W0604
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_names_its_code_first() {
        for code in Code::ALL {
            let heading = page(*code).lines().next().unwrap_or("");
            assert!(
                heading.starts_with("# ") && heading.contains(code.as_str()),
                "{code:?}: {heading}"
            );
        }
    }
}

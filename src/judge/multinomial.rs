//! The two-sided test of whether events fall on the groups in proportion to their exposure: multinomial
//! against a Dirichlet mixture (Lindon & Malek, NeurIPS 2022, arXiv 2011.03567). It holds at any look, for
//! an exposure that stays; where that changes, `counts` has a test.

use libm::lgamma;

/// How close to the exposure the alternatives of the mixture are, as a number of events.
pub const K: f64 = 100.0;

/// ln E that the candidate's share of the events is not its share of the requests; 0 where nothing can be
/// compared. `exposure` is the observed share of the requests (0 to 1), `k` (more than 0, by default [`K`])
/// the strength of the prior.
#[must_use]
pub fn two_sided_ln_e(candidate: u64, stable: u64, exposure: f64, k: f64) -> f64 {
    let theta = [exposure, 1.0 - exposure];
    let prior = theta.map(|share| share * k);
    let marginals = marginals(&[&[candidate, stable]], &theta, &prior);
    marginals.map_or(0.0, |marginals| marginals.ln_alternative - marginals.ln_null)
}

/// How probable counts are under both hypotheses. Their difference is ln E.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Marginals {
    /// ln M1: under shares that are Dirichlet distributed.
    pub ln_alternative: f64,
    /// ln M0: under the shares expected.
    pub ln_null: f64,
}

/// The marginal likelihoods of rows of counts, multinomial coefficients included. `theta` are the shares
/// expected of the groups (each between 0 and 1, in sum 1), `prior` the parameters of the Dirichlet
/// distribution (each more than 0). `None` if the groups do not match, or a number is out of its range.
#[must_use]
pub fn marginals(rows: &[&[u64]], theta: &[f64], prior: &[f64]) -> Option<Marginals> {
    let groups = theta.len();
    let fits = prior.len() == groups && rows.iter().all(|row| row.len() == groups);
    let shares =
        theta.iter().all(|share| *share > 0.0 && *share < 1.0) && (theta.iter().sum::<f64>() - 1.0).abs() < 1e-6;
    if !fits || !shares || !prior.iter().all(|weight| weight.is_finite() && *weight > 0.0) {
        return None;
    }
    let coefficients: f64 = rows.iter().map(|row| ln_coefficient(row)).sum();
    let column = |group: usize| rows.iter().map(|row| row[group] as f64).sum::<f64>();
    let totals: Vec<f64> = (0..groups).map(column).collect();
    let (all, weight): (f64, f64) = (totals.iter().sum(), prior.iter().sum());
    let risen: f64 = totals.iter().zip(prior).map(|(total, own)| lgamma(own + total) - lgamma(*own)).sum();
    let expected: f64 = totals.iter().zip(theta).map(|(total, share)| total * share.ln()).sum();
    let marginals = Marginals {
        ln_alternative: coefficients + lgamma(weight) - lgamma(weight + all) + risen,
        ln_null: coefficients + expected,
    };
    (marginals.ln_alternative.is_finite() && marginals.ln_null.is_finite()).then_some(marginals)
}

/// ln of the ways in which events can be dealt out as they were.
fn ln_coefficient(row: &[u64]) -> f64 {
    let total: f64 = row.iter().map(|count| *count as f64).sum();
    lgamma(total + 1.0) - row.iter().map(|count| lgamma(*count as f64 + 1.0)).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::judge::p_value;

    #[rstest]
    #[case(70, 30, 0.5, 0.024_729_5)]
    #[case(25, 75, 0.1, 0.009_649_53)]
    #[case(30, 120, 0.1, 0.026_076_6)]
    fn p_values_are_those_of_the_vectors(#[case] x: u64, #[case] y: u64, #[case] rho: f64, #[case] expected: f64) {
        let p = p_value(two_sided_ln_e(x, y, rho, K));
        assert!((p / expected - 1.0).abs() < 5e-6, "{p} {expected}");
    }

    #[test]
    fn marginals_are_those_of_the_vectors() {
        let rows: [&[u64]; 4] = [&[20, 17, 9], &[18, 21, 8], &[4, 6, 4], &[18, 19, 11]];
        let alternative = [-7.028_201, -11.947_848, -15.471_402, -19.964_845];
        let null = [-4.077_641, -8.265_947, -11.610_744, -15.781_031];
        for seen in 1..=4 {
            let found = marginals(&rows[..seen], &[0.4, 0.4, 0.2], &[1.0, 1.0, 1.0]).unwrap();
            assert!((found.ln_alternative - alternative[seen - 1]).abs() < 1e-6, "{found:?}");
            assert!((found.ln_null - null[seen - 1]).abs() < 1e-6, "{found:?}");
        }
    }

    #[test]
    fn groups_that_do_not_match_have_no_marginals() {
        assert_eq!(marginals(&[&[1, 2, 3]], &[0.5, 0.5], &[1.0, 1.0]), None);
        assert_eq!(marginals(&[&[1, 2]], &[0.5, 0.4], &[1.0, 1.0]), None);
        assert_eq!(marginals(&[&[1, 2]], &[0.5, 0.5], &[1.0, 0.0]), None);
        assert_eq!(two_sided_ln_e(5, 0, 0.0, K), 0.0);
        assert_eq!(two_sided_ln_e(5, 0, 1.0, K), 0.0);
    }

    proptest! {
        #[test]
        fn no_input_makes_it_nan_or_infinite(x in any::<u64>(), y in any::<u64>(), rho in any::<f64>(),
            share in 0.0..=1.0, k in any::<f64>(),
        ) {
            for exposure in [rho, share] {
                let ln_e = two_sided_ln_e(x, y, exposure, k);
                let p = p_value(ln_e);
                prop_assert!(ln_e.is_finite() && (0.0..=1.0).contains(&p));
            }
        }

        #[test]
        fn which_group_is_first_is_irrelevant(x in 0..1000_u64, y in 0..1000_u64, rho in 0.01..0.99) {
            let (one, other) = (two_sided_ln_e(x, y, rho, K), two_sided_ln_e(y, x, 1.0 - rho, K));
            prop_assert!((one - other).abs() < 1e-8 * (1.0 + one.abs()), "{one} {other}");
        }
    }
}

//! Tails of the t distribution and quantiles of the normal distribution.
//!
//! Only these functions call the platform's mathematics library, for logarithms. Their last digits may differ between
//! platforms.

/// The upper tail of the t distribution: the probability of a number above `t`, which is the one-sided p-value.
///
/// `½ · I_x(ν/2, ½)` with ν `degrees` of freedom and `x = ν / (ν + t²)` for `t ≥ 0` (DLMF 8.17; Abramowitz and Stegun
/// 26.7.1); for `t < 0`, 1 minus the value at `−t`. An infinite `t` gives 0 or 1, and NaN gives 1.
///
/// # Panics
/// If `degrees` is 0.
pub fn student_t_above(t: f64, degrees: usize) -> f64 {
    assert!(degrees > 0, "no degrees of freedom");
    if t.is_nan() {
        return 1.0;
    }
    let degrees = degrees as f64;
    let tail =
        if t.is_infinite() { 0.0 } else { 0.5 * incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5) };
    if t >= 0.0 { tail } else { 1.0 - tail }
}

/// Coefficients of [`normal_quantile`] for `|p − 1/2| ≤ 0.425`: numerator and denominator, in increasing powers.
const CENTRE: [[f64; 8]; 2] = [
    [
        3.387_132_872_796_366_5,
        133.141_667_891_784_38,
        1_971.590_950_306_551_3,
        13_731.693_765_509_46,
        45_921.953_931_549_87,
        67_265.770_927_008_7,
        33_430.575_583_588_13,
        2_509.080_928_730_122_7,
    ],
    [
        1.0,
        42.313_330_701_600_91,
        687.187_007_492_057_9,
        5_394.196_021_424_751,
        21_213.794_301_586_597,
        39_307.895_800_092_71,
        28_729.085_735_721_943,
        5_226.495_278_852_545,
    ],
];

/// The same for the tails with `√(−ln tail) ≤ 5`.
const NEAR: [[f64; 8]; 2] = [
    [
        1.423_437_110_749_683_5,
        4.630_337_846_156_546,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        0.241_780_725_177_450_6,
        0.022_723_844_989_269_184,
        7.745_450_142_783_414e-4,
    ],
    [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        0.689_767_334_985_1,
        0.148_103_976_427_480_08,
        0.015_198_666_563_616_457,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ],
];

/// The same for the rest of the tails.
const FAR: [[f64; 8]; 2] = [
    [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        0.296_560_571_828_504_87,
        0.026_532_189_526_576_124,
        0.001_242_660_947_388_078_4,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ],
    [
        1.0,
        0.599_832_206_555_888,
        0.136_929_880_922_735_8,
        0.014_875_361_290_850_615,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ],
];

/// The probability that a standard normal variable is above `z`.
///
/// Abramowitz and Stegun, "Handbook of Mathematical Functions" (1964), 26.2.11 and 26.2.14: a series near 0 and a
/// continued fraction in the tails. About 13 digits.
pub fn normal_above(z: f64) -> f64 {
    const NEAR_ZERO: f64 = 3.0;
    const TERMS: u32 = 100;
    let density = (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if z.abs() < NEAR_ZERO {
        let (mut term, mut sum) = (z, z);
        for n in 1..TERMS {
            term *= z * z / f64::from(2 * n + 1);
            sum += term;
        }
        return 0.5 - density * sum;
    }
    let size = z.abs();
    let fraction = (1..=TERMS).rev().fold(size, |below, n| size + f64::from(n) / below);
    let tail = density / fraction;
    if z < 0.0 { 1.0 - tail } else { tail }
}

/// The `p` quantile of the standard normal distribution.
///
/// Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37:3 (1988),
/// routine PPND16: about 16 digits. 0 and 1 give −∞ and +∞; numbers outside 0 to 1 give NaN.
pub fn normal_quantile(p: f64) -> f64 {
    let ratio = |[above, below]: [[f64; 8]; 2], x: f64| {
        let polynomial = |of: [f64; 8]| of.iter().rev().fold(0.0, |sum, factor| sum * x + factor);
        polynomial(above) / polynomial(below)
    };
    if !(0.0..=1.0).contains(&p) {
        return f64::NAN;
    }
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(CENTRE, 0.180_625 - q * q);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    if tail == 0.0 {
        return q.signum() * f64::INFINITY;
    }
    let r = (-tail.ln()).sqrt();
    q.signum() * if r <= 5.0 { ratio(NEAR, r - 1.6) } else { ratio(FAR, r - 5.0) }
}

/// The regularised incomplete beta function `I_x(a, b)`, by its continued fraction (DLMF 8.17.22) and Lentz's method.
/// The fraction converges fast for `x < (a + 1) / (a + b + 2)`; for larger `x` the function is `1 − I_{1−x}(b, a)`.
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return x.clamp(0.0, 1.0);
    }
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let away_from_zero = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let (mut c, mut d) = (1.0, 1.0 / away_from_zero(1.0 - (a + b) * x / (a + 1.0)));
    let mut fraction = d;
    for m in 1..10_000 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        let mut change = 1.0;
        for coefficient in [even, odd] {
            d = 1.0 / away_from_zero(1.0 + coefficient * d);
            c = away_from_zero(1.0 + coefficient / c);
            change = c * d;
            fraction *= change;
        }
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    (a * x.ln() + b * (1.0 - x).ln() - ln_beta(a, b)).exp() * fraction / a
}

/// `ln B(a, b)` for multiples of ½: by `Γ(x + 1) = x·Γ(x)`, down to `Γ(½) = √π` or `Γ(1) = 1`, as a sum of logarithms.
fn ln_beta(a: f64, b: f64) -> f64 {
    let ln_gamma = |mut x: f64| {
        let mut sum = 0.0;
        while x > 1.0 {
            x -= 1.0;
            sum += x.ln();
        }
        if x < 1.0 { sum + 0.5 * std::f64::consts::PI.ln() } else { sum }
    };
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCIPY_TAILS: [(f64, usize, f64); 35] = [
        (0.0, 1, 0.5),
        (0.0, 2, 0.5),
        (0.0, 7, 0.5),
        (0.0, 31, 0.5),
        (0.0, 254, 0.5),
        (0.3, 1, 0.4072264209222577),
        (0.3, 2, 0.3962428304200888),
        (0.3, 7, 0.3864450252010671),
        (0.3, 31, 0.3830898375055144),
        (0.3, 254, 0.38221126261267185),
        (1.0, 1, 0.25000000000000006),
        (1.0, 2, 0.2113248654051871),
        (1.0, 7, 0.1753083314101037),
        (1.0, 31, 0.1625263663617667),
        (1.0, 254, 0.1591311051287624),
        (-1.7, 1, 0.8307469726696672),
        (-1.7, 2, 0.8843832868992144),
        (-1.7, 7, 0.9335355516087224),
        (-1.7, 31, 0.9504275708604767),
        (-1.7, 254, 0.9548224806100732),
        (2.5, 1, 0.12111894159084341),
        (2.5, 2, 0.06480586011075541),
        (2.5, 7, 0.020496109292876444),
        (2.5, 31, 0.008960113406693103),
        (2.5, 254, 0.006525342548928025),
        (6.9, 1, 0.045812893413714056),
        (6.9, 2, 0.010182292258462794),
        (6.9, 7, 0.00011566447390242339),
        (6.9, 31, 4.8821603743490754e-08),
        (6.9, 254, 2.0634221645394013e-11),
        (40.0, 1, 0.007956089912025812),
        (40.0, 2, 0.0003122073360923703),
        (40.0, 7, 7.951089992425182e-10),
        (40.0, 31, 1.5090709622210297e-28),
        (40.0, 254, 6.21925051742889e-112),
    ];

    /// Expected values are `scipy.stats.norm.sf(z)` of version 1.17.1.
    #[test]
    fn tails_of_the_normal_distribution_are_those_of_scipy() {
        for (z, expected) in NORMAL {
            let found = normal_above(z);
            assert!((found - expected).abs() <= 1e-12 * expected, "z = {z}: {found}, expected {expected}");
        }
    }

    const NORMAL: [(f64, f64); 14] = [
        (0.0, 0.5),
        (0.1, 0.460172162722971),
        (0.5, 0.3085375387259869),
        (1.0, 0.15865525393145707),
        (1.959963984540054, 0.025),
        (2.9, 0.0018658133003840375),
        (2.999, 0.0013543365337271057),
        (3.0, 0.0013498980316300933),
        (3.17, 0.0007621946880672346),
        (4.5, 3.3976731247300535e-06),
        (6.0, 9.865876450376946e-10),
        (9.0, 1.1285884059538324e-19),
        (-0.7, 0.758036347776927),
        (-3.5, 0.9997673709209645),
    ];

    /// Expected values are `scipy.stats.t.sf(t, degrees)` of version 1.17.1.
    #[test]
    fn tails_of_the_t_distribution_are_those_of_scipy() {
        for (t, degrees, expected) in SCIPY_TAILS {
            let found = student_t_above(t, degrees);
            assert!((found - expected).abs() <= 1e-12 * expected, "t = {t}, {degrees}: {found}, expected {expected}");
        }
        assert_eq!(student_t_above(f64::INFINITY, 3), 0.0);
        assert_eq!(student_t_above(f64::NEG_INFINITY, 3), 1.0);
        assert_eq!(student_t_above(f64::NAN, 3), 1.0);
    }
}

/* Poisson draws by counter: one uniform (or, for means so large that it makes no difference, one
 * normal) draw each, so a draw depends on (seed, stream, index, mean) alone. */
#define _DEFAULT_SOURCE /* lgamma_r: lgamma itself writes a global, signgam */
#include "math/pf_math.h"
#include "train/pf_strengths.h"

/* Inversion, starting at the mode and taking turns to its left and right: about sqrt(mean) steps
 * and no underflow, where starting at 0 would need e^-mean. */
static double from_the_mode(double u, double mean)
{
    double left = floor(mean), right = left;
    int sign;
    double p_left = exp(left * log(mean) - mean - lgamma_r(left + 1, &sign)), p_right = p_left;
    u -= p_left;
    double last = left;
    while (u > 0) {
        double before = u;
        right += 1;
        p_right *= mean / right;
        u -= p_right;
        last = right;
        if (u > 0 && left > 0) {
            p_left *= left / mean;
            left -= 1;
            u -= p_left;
            last = left;
        }
        if (u == before) /* what is left of u is rounding of the sum */
            break;
    }
    return last;
}

double pf_poisson(uint64_t seed, uint64_t stream, uint64_t index, double mean)
{
    if (!(mean > 0))
        return 0;
    if (mean < 10) {
        double u = pf_uniform(seed, stream, index), k = 0, p = exp(-mean), sum = p;
        while (u > sum && p > 0) {
            k += 1;
            p *= mean / k;
            sum += p;
        }
        return k;
    }
    if (mean < 1e8)
        return from_the_mode(pf_uniform(seed, stream, index), mean);
    /* The skewness is below 1e-4. Whole numbers as long as they can be told apart. */
    return fmax(0, floor(mean + sqrt(mean) * pf_normal(seed, stream, index) + 0.5));
}

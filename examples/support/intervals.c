#include "intervals.h"

#include <math.h>

#include "cli.h"

static const double normal_975 = 1.959963984540054;

interval interval_share(double share, double n)
{
    double z2 = normal_975 * normal_975, middle = (share + z2 / (2 * n)) / (1 + z2 / n);
    double half = sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n);
    return (interval){share, fmax(0, middle - half), fmin(1, middle + half)};
}

interval interval_mean(int64_t n, const double *values)
{
    double mean = 0, squares = 0;
    for (int64_t i = 0; i < n; i++)
        mean += values[i] / (double)n;
    for (int64_t i = 0; i < n; i++)
        squares += (values[i] - mean) * (values[i] - mean);
    double half = n < 2 ? INFINITY : normal_975 * sqrt(squares / (double)(n - 1) / (double)n);
    return (interval){mean, mean - half, mean + half};
}

interval interval_accuracy(const prefopt_columns *pairs, const double *values)
{
    double right = 0, weight = 0, squares = 0;
    for (int64_t i = 0; i < pairs->n_rows; i++) {
        double d = values[2 * i] - values[2 * i + 1], label = pairs->label[i];
        right += pairs->weight[i] * (d > 0 ? label : d < 0 ? 1 - label : 0.5);
        weight += pairs->weight[i];
        squares += pairs->weight[i] * pairs->weight[i];
    }
    if (!(weight > 0)) {
        fprintf(stderr, "the weights of all pairs are 0\n");
        exit(1);
    }
    return interval_share(right / weight, weight * weight / squares);
}

/* 97.5 % quantile of Student's t with n - 1 degrees of freedom: exact for one and two, from three
 * on by four terms of Cornish and Fisher's expansion (right to 0.004 at three, 0.001 from four on).
 */
static double t_quantile(int n)
{
    static const double p = 0.975, pi = 3.14159265358979324;
    double v = n - 1, z = normal_975, z2 = z * z;
    if (n == 2)
        return tan(pi * (p - 0.5));
    if (n == 3)
        return (2 * p - 1) / sqrt(2 * p * (1 - p));
    double first = z * (z2 + 1) / 4, second = z * ((5 * z2 + 16) * z2 + 3) / 96,
           third = z * (((3 * z2 + 19) * z2 + 17) * z2 - 15) / 384,
           fourth = z * ((((79 * z2 + 776) * z2 + 1482) * z2 - 1920) * z2 - 945) / 92160;
    return z + (first + (second + (third + fourth / v) / v) / v) / v;
}

double mean_of(int n, const double *x, double *half)
{
    double mean = 0, square = 0;
    for (int i = 0; i < n; i++)
        mean += x[i] / n;
    for (int i = 0; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean);
    *half = t_quantile(n) * sqrt(square / (n - 1) / n);
    return mean;
}

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

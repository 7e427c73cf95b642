/* Shares and means with 95 % intervals. */
#ifndef EXAMPLE_INTERVALS_H
#define EXAMPLE_INTERVALS_H

#include <prefopt/prefopt.h>

typedef struct {
    double value, low, high;
} interval;

/* A share of n trials (n may be what weights are worth): Wilson's interval. */
interval interval_share(double share, double n);

/* The mean of n numbers with a normal interval; a single one has none (infinite). */
interval interval_mean(int64_t n, const double *values);

/* Mean of one number a seed or topic, at least two, and half the width of its 95 % interval
 * (Student's t). */
double mean_of(int n, const double *x, double *half);

/* Share of weight whose first number is above the second, equal ones half; an uncertain label
 * counts for both sides. values: two a pair. Weights that are all 0 end the program. */
interval interval_accuracy(const prefopt_columns *pairs, const double *values);

#endif

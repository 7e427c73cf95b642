/* Figure 22.1 of the lecture: one Gaussian fitted to a mixture of two, under each KL. Forward KL
 * covers both modes (it matches mean and variance), reverse KL picks the mode that is nearest to
 * its start. */
#include <math.h>

#include "support/cli.h"
#include "support/plot.h"

enum { N = 2001 };
static double x[N], log_q[N];

static void normalise(double *log_p)
{
    double z = prefopt_log_sum_exp(N, log_p);
    for (int i = 0; i < N; i++)
        log_p[i] -= z;
}

/* log p on the grid for theta = (mean, log sd). */
static void gaussian(const double theta[2], double *log_p)
{
    for (int i = 0; i < N; i++)
        log_p[i] = -0.5 * pow((x[i] - theta[0]) / exp(theta[1]), 2);
    normalise(log_p);
}

/* KL and its gradient: the library's gradient over the N logits, then the chain rule to theta. */
static double kl(int32_t direction, const double theta[2], double grad[2])
{
    static double log_p[N], grad_logits[N];
    double value, sd = exp(theta[1]);
    gaussian(theta, log_p);
    CALL(prefopt_kl_exact(direction, N, log_p, log_q, &value, grad_logits));
    grad[0] = grad[1] = 0;
    for (int i = 0; i < N; i++) {
        double z = (x[i] - theta[0]) / sd;
        grad[0] += grad_logits[i] * z / sd;
        grad[1] += grad_logits[i] * z * z;
    }
    return value;
}

/* BFGS in two dimensions with backtracking, to a gradient of 1e-12 or as far as rounding lets it.
 */
static double fit(int32_t direction, double theta[2])
{
    double h[3] = {1, 0, 1}, grad[2], value = kl(direction, theta, grad);
    for (int step = 0; step < 500 && hypot(grad[0], grad[1]) > 1e-12; step++) {
        double d[2] = {-h[0] * grad[0] - h[1] * grad[1], -h[1] * grad[0] - h[2] * grad[1]};
        double slope = d[0] * grad[0] + d[1] * grad[1], t = fmin(1, 0.5 / hypot(d[0], d[1]));
        double next[2], next_grad[2], next_value;
        for (;; t /= 2) {
            next[0] = theta[0] + t * d[0];
            next[1] = theta[1] + t * d[1];
            next_value = kl(direction, next, next_grad);
            if (next_value <= value + 1e-4 * t * slope || t < 1e-8)
                break;
        }
        double s[2] = {next[0] - theta[0], next[1] - theta[1]};
        double y[2] = {next_grad[0] - grad[0], next_grad[1] - grad[1]};
        double sy = s[0] * y[0] + s[1] * y[1];
        if (sy > 1e-300) { /* H := (I - s y'/sy) H (I - y s'/sy) + s s'/sy */
            double hy[2] = {h[0] * y[0] + h[1] * y[1], h[1] * y[0] + h[2] * y[1]};
            double c = (1 + (y[0] * hy[0] + y[1] * hy[1]) / sy) / sy;
            h[0] += c * s[0] * s[0] - 2 * hy[0] * s[0] / sy;
            h[1] += c * s[0] * s[1] - (hy[0] * s[1] + s[0] * hy[1]) / sy;
            h[2] += c * s[1] * s[1] - 2 * hy[1] * s[1] / sy;
        }
        memcpy(theta, next, sizeof next);
        memcpy(grad, next_grad, sizeof next_grad);
        value = next_value;
    }
    return value;
}

int main(int argc, char **argv)
{
    const char *picture = argc > 1 ? argv[1] : "kl_projection.svg";
    for (int i = 0; i < N; i++) { /* 0.6 N(-2, 0.7^2) + 0.4 N(2.5, 0.9^2) */
        double parts[2];
        x[i] = -20 + 40.0 * i / (N - 1);
        parts[0] = log(0.6 / 0.7) - 0.5 * pow((x[i] + 2) / 0.7, 2);
        parts[1] = log(0.4 / 0.9) - 0.5 * pow((x[i] - 2.5) / 0.9, 2);
        log_q[i] = prefopt_log_sum_exp(2, parts);
    }
    normalise(log_q);
    double mean = 0.6 * -2 + 0.4 * 2.5;
    double variance = 0.6 * (0.49 + 4) + 0.4 * (0.81 + 6.25) - mean * mean;

    static const char *const name[3] = {"forward KL", "reverse KL, left start",
                                        "reverse KL, right start"};
    const int32_t direction[3] = {PREFOPT_KL_FORWARD, PREFOPT_KL_REVERSE, PREFOPT_KL_REVERSE};
    double theta[3][2] = {{0.5, 0}, {-3, 0}, {3, 0}}, density[4][N], other, unused[2];
    printf("%-24s %10s %10s %12s %12s\n", "fit", "mean", "variance", "forward KL", "reverse KL");
    int others_larger = 1; /* each optimum is far off in the direction it was not fitted in */
    for (int k = 0; k < 3; k++) {
        double value = fit(direction[k], theta[k]);
        other = kl(1 - direction[k], theta[k], unused);
        others_larger &= other > value;
        printf("%-24s %10.6f %10.6f %12.6f %12.6f\n", name[k], theta[k][0], exp(2 * theta[k][1]),
               k == 0 ? value : other, k == 0 ? other : value);
        gaussian(theta[k], density[k]);
    }
    printf("%-24s %10.6f %10.6f   (closed form)\n", "mixture", mean, variance);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < 3; k++)
            density[k][i] = exp(density[k][i]) / (x[1] - x[0]);
        density[3][i] = exp(log_q[i]) / (x[1] - x[0]);
    }
    plot *p = plot_open(picture, 1, "One Gaussian for two modes");
    plot_panel(p, "", "x", "density", "[-7:7]", "[0:0.6]");
    plot_set(p, "set key top right");
    plot_curve(p, "mixture", N, x, density[3], NULL, NULL);
    for (int k = 0; k < 3; k++)
        plot_curve(p, name[k], N, x, density[k], NULL, NULL);
    if (plot_close(p) == 0)
        printf("picture: %s\n", picture);
    int forward_matches =
        fabs(theta[0][0] - mean) < 1e-6 && fabs(exp(2 * theta[0][1]) - variance) < 1e-6;
    int each_to_its_mode = fabs(theta[1][0] + 2) < 0.1 && fabs(theta[2][0] - 2.5) < 0.1;
    return forward_matches && each_to_its_mode && others_larger ? 0 : 1;
}

/* What the policy gradients for completions and for tokens share: one element's terms. */
#ifndef PF_PG_H
#define PF_PG_H

#include <stdbool.h>

#include "base/pf_base.h"
#include "prefopt/policy_gradient.h"

/* Of a reward or value: sums over a sequence or group stay in range. */
#define PF_LARGEST_REWARD 1e280

/* The options of either that concern one element. */
typedef struct {
    int32_t kl_placement, kl_estimator;
    double beta, clip_low, clip_high;
} pf_pg_rule;

typedef struct {
    double surrogate; /* -min(A rho, A clip(rho)) */
    double kl;        /* rho k */
    double slope;     /* d (surrogate + beta kl, IN_LOSS alone) / d logp */
    bool clipped;
} pf_pg_term;

/* Ranges of the rule's options. */
int32_t pf_pg_check_rule(const char *call, const pf_pg_rule *rule);

/* logp finite or -INFINITY; ref and old NULL, or point at the element's; what pf_pg_check_elements
 * lets through. */
pf_pg_term pf_pg_one(const pf_pg_rule *rule, double advantage, double logp, const double *ref,
                     const double *old);

/* The arrays that at least one element needs are there. */
int32_t pf_pg_check_arrays(const char *call, const pf_pg_rule *rule, const double *advantage,
                           const double *logp, const double *ref);

/* Elements first .. last - 1: arrays hold what pf_pg_one takes, and no ratio overflows. */
int32_t pf_pg_check_elements(const char *call, int64_t first, int64_t last, const double *advantage,
                             const double *logp, const double *ref, const double *old);

/* reward - beta (logp - ref_logp): -INFINITY where the reference alone has no mass. */
double pf_pg_shaped_reward(double reward, double beta, double logp, double ref);

#endif

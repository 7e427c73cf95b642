/* prefopt/loss.h: the objectives: pure functions from log-probabilities and scores to a loss and
 * its gradient. They hold no state, know no model, and allocate nothing (but for the two sorted
 * variants, PREFOPT_DPO_AOT and PREFOPT_DPO_AOT_UNPAIRED).
 *
 *     prefopt_pair_scores in = {.struct_size = sizeof in, .n = n, .chosen = c, .rejected = r,
 *                               .ref_chosen = rc, .ref_rejected = rr};
 *     prefopt_pair_loss out = {.struct_size = sizeof out, .grad_chosen = gc, .grad_rejected = gr};
 *     prefopt_dpo_options dpo;
 *     prefopt_dpo_options_init(&dpo, sizeof dpo);
 *     dpo.variant = PREFOPT_DPO_IPO_SUM;
 *     if (prefopt_loss_dpo(&dpo, &in, &out) != PREFOPT_OK)
 *         fprintf(stderr, "%s\n", prefopt_last_error());
 *
 * Every call here is thread-safe: it touches its arguments alone.
 */
#ifndef PREFOPT_LOSS_H
#define PREFOPT_LOSS_H

#include "base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------- pair losses */

/* Pairs of completions with their scores, borrowed for the call. Scores are finite or -INFINITY
 * ("never"); NaN and +INFINITY are PREFOPT_ERR_NUMERIC. `reserved` is 0. */
typedef struct prefopt_pair_scores {
    uint32_t struct_size, reserved;
    int64_t n;
    const double *chosen, *rejected; /* n: rewards (BT) or policy log-probabilities (DPO) */
    const double *ref_chosen,
        *ref_rejected;    /* n: reference log-probabilities; NULL, NULL: reference-free */
    const double *weight; /* n, finite and >= 0; NULL: 1 */
    const double *label;  /* n, P(chosen is preferred) in [0, 1]; NULL: 1 */
    const double *margin; /* n, finite, subtracted from the score difference; NULL: 0 */
    const int64_t *len_chosen,
        *len_rejected; /* n, completion tokens, > 0; the length-normalised variants alone */
} prefopt_pair_scores;

/* What a pair loss gives back. The caller sets struct_size and the arrays; each array is the
 * caller's, does not overlap the inputs, and may be NULL. Nothing is written when the call fails.
 *
 * Corners, the same for all pair losses:
 *   - n = 0, or every weight 0: mean is 0 and the gradients are 0.
 *   - A pair of weight 0 has no part in mean and a gradient of 0, whatever its scores; its `each`
 *     is its loss, or 0 where that has no value.
 *   - A pair whose loss is +INFINITY makes mean +INFINITY. Gradients are always finite: the limit
 *     where that is finite (-beta for a chosen log-probability of -INFINITY under the sigmoid
 *     link), and 0 where the derivative itself is infinite or overflows.
 *   - A reference of -INFINITY under a finite policy is a log-ratio of +INFINITY (sigmoid link:
 *     loss 0 for the chosen, +INFINITY for the rejected).
 *   - A pair of positive weight whose loss has no value is PREFOPT_ERR_NUMERIC and named: policy
 *     and reference both -INFINITY where the ratio is needed, an infinity minus an infinity in the
 *     difference, or a loss of -INFINITY (ROBUST with an infinite difference). */
typedef struct prefopt_pair_loss {
    uint32_t struct_size, reserved;
    double mean;         /* out: sum(weight * each) / sum(weight) */
    double *each;        /* n, or NULL */
    double *grad_chosen, /* n, or NULL: d mean / d chosen */
        *grad_rejected;  /* n, or NULL: d mean / d rejected */
    double grad_log_tie; /* out: d mean / d log_tie; 0 without a tie model. Since 0.1; written when
                            struct_size covers it */
} prefopt_pair_loss;

enum prefopt_tie_model {
    PREFOPT_TIE_NONE = 0,      /* label 0.5 is half a win each */
    PREFOPT_TIE_DAVIDSON = 1,  /* Davidson 1970 */
    PREFOPT_TIE_RAO_KUPPER = 2 /* Rao and Kupper 1967 */
};

typedef struct prefopt_bt_options {
    uint32_t struct_size;
    int32_t tie_model; /* prefopt_tie_model; default NONE */
    double log_tie; /* DAVIDSON: log nu, finite; RAO_KUPPER: log theta, finite, >= 0; default 0 */
    double centre;  /* finite, >= 0: adds centre * (chosen + rejected)^2; default 0 */
} prefopt_bt_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_bt_options_init(prefopt_bt_options *options, uint32_t struct_size);

/* Bradley-Terry: the negative log-likelihood of preferences under rewards (lecture 22.1).
 *
 *     d = chosen - rejected - margin,  d' = rejected - chosen - margin
 *     TIE_NONE:   -label log sigma(d) - (1 - label) log sigma(d')
 *
 * With a tie model the label is an outcome: 1 chosen won, 0 rejected won, 0.5 a tie (any other is
 * ARGUMENT), and so is a margin, as the three outcomes then would not add up to one:
 *
 *     DAVIDSON    P(chosen) = a/S, P(rejected) = b/S, P(tie) = nu sqrt(a b)/S,
 *                 a = exp(chosen), b = exp(rejected), S = a + b + nu sqrt(a b), nu = exp(log_tie)
 *     RAO_KUPPER  P(chosen) = a / (a + theta b), P(rejected) = b / (theta a + b),
 *                 P(tie) = the rest, theta = exp(log_tie); at log_tie = 0 there are no ties
 *
 * centre (>= 0) adds centre * (chosen + rejected)^2 to each pair, which keeps rewards around 0
 * without touching their differences; it needs finite rewards.
 *
 * options NULL: defaults. Not used, hence ARGUMENT unless NULL: ref_chosen, ref_rejected,
 * len_chosen, len_rejected. log_tie is not used without a tie model.
 * Errors: ARGUMENT, NUMERIC (see prefopt_pair_loss), VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_loss_bradley_terry(const prefopt_bt_options *options,
                                               const prefopt_pair_scores *in,
                                               prefopt_pair_loss *out);

/* The DPO family. With a = chosen - ref_chosen, b = rejected - ref_rejected, d = a - b, n+ and n-
 * the lengths, eps = label_smoothing; S(z) = -(1-eps) log sigma(z) - eps log sigma(-z). After the
 * equation: what the variant uses beside beta. Every variant but the two AOT takes weight and
 * label; "margin" marks those that take one: d (or the difference that stands for it) is reduced by
 * it. */
enum prefopt_dpo_variant {
    /* S(beta d). Reference, margin, smoothing, divergence. DPO, arXiv 2305.18290 eq. 7; smoothing:
       conservative DPO. */
    PREFOPT_DPO_SIGMOID = 0,
    /* max(0, 1 - beta d), slope 0 at the kink beta d = 1. Reference, margin, divergence. SLiC,
       arXiv 2305.10425. */
    PREFOPT_DPO_HINGE = 1,
    /* (a/n+ - b/n- - 1/(2 beta))^2. Reference, margin, lengths. IPO on per-token means. */
    PREFOPT_DPO_IPO = 2,
    /* (d - 1/(2 beta))^2. Reference, margin, divergence. IPO, arXiv 2310.12036 eq. 17. */
    PREFOPT_DPO_IPO_SUM = 3,
    /* [-(1-eps) log sigma(beta d) + eps log sigma(-beta d)] / (1 - 2 eps), eps < 1/2. Reference,
       margin, smoothing, divergence. arXiv 2403.00409. Unbounded below for eps > 0. */
    PREFOPT_DPO_ROBUST = 4,
    /* p [log p - log(1-eps)] + q [log q - log eps], p = sigma(beta d), q = 1 - p, 0 < eps < 1
       (required: the default 0 is an error). Reference, margin, smoothing, divergence.
       arXiv 2402.00856. */
    PREFOPT_DPO_EXO = 5,
    /* -log sigma(beta a) - 1/2 log sigma(-beta a) - 1/2 log sigma(-beta b). Reference.
       arXiv 2402.05369. */
    PREFOPT_DPO_NCA = 6,
    /* -log sigma(beta a - delta) - log sigma(-(beta b - delta)). Reference, delta.
       arXiv 2404.04656. */
    PREFOPT_DPO_BCO = 7,
    /* (a - 1/(2 beta))^2 + (b + 1/(2 beta))^2. Reference. arXiv 2405.00675. */
    PREFOPT_DPO_SPPO = 8,
    /* mean over ranks of S(beta (A - B)), A the sorted chosen - rejected, B the sorted ref_chosen -
       ref_rejected. Reference, smoothing. arXiv 2406.05882. */
    PREFOPT_DPO_AOT = 9,
    /* the same with A the sorted a and B the sorted b: the pairing is not used. */
    PREFOPT_DPO_AOT_UNPAIRED = 10,
    /* 1 - sigma(beta a) + sigma(beta b). Reference. arXiv 2408.06266. */
    PREFOPT_DPO_APO_ZERO = 11,
    /* sigma(beta a) + 1 - sigma(beta d). Reference, margin. arXiv 2408.06266. */
    PREFOPT_DPO_APO_DOWN = 12,
    /* m = sigma(beta d / tau): (1-m) (-log sigma(beta d)) + m exp(-beta d). Reference, margin, tau.
       arXiv 2406.08414. For tau > 1 it grows as exp(-beta d (1 - 1/tau)) and may overflow to
       +INFINITY. */
    PREFOPT_DPO_DISCOPOP = 13,
    /* S(beta (a/n+ - b/n-)). Reference, margin, lengths, smoothing. */
    PREFOPT_DPO_SIGMOID_NORM = 14,
    /* S(beta (chosen/n+ - rejected/n-) - gamma). Margin, lengths, smoothing, gamma; no reference.
       arXiv 2405.14734. */
    PREFOPT_DPO_SIMPO = 15,
    /* S(beta (chosen - rejected)). Margin, smoothing; no reference. arXiv 2401.08417, without its
       likelihood term. */
    PREFOPT_DPO_CPO = 16,
    /* -log sigma(o(chosen/n+) - o(rejected/n-)), o(x) = x - log(1 - exp(x)) the log-odds; both
       means must be <= 0 (at 0, probability 1, o is +INFINITY). Margin, lengths; neither reference
       nor beta. arXiv 2403.07691; the caller adds the likelihood term. */
    PREFOPT_DPO_ORPO = 17,
    /* -log sigma(beta (d - lambda max(0, -a))): holds the chosen log-probability up; no penalty
       slope at a = 0. Reference, margin, lambda. arXiv 2402.13228. */
    PREFOPT_DPO_DPOP = 18
};

/* f-divergences of arXiv 2309.16240: d = score(a) - score(b). */
enum prefopt_divergence {
    PREFOPT_DIVERGENCE_REVERSE_KL = 0,     /* score(u) = u */
    PREFOPT_DIVERGENCE_FORWARD_KL = 1,     /* -exp(-u) */
    PREFOPT_DIVERGENCE_JENSEN_SHANNON = 2, /* log sigma(u) */
    PREFOPT_DIVERGENCE_ALPHA = 3           /* exp((alpha-1) u) / (alpha-1) */
};

typedef struct prefopt_dpo_options {
    uint32_t struct_size;
    int32_t variant;        /* prefopt_dpo_variant; default SIGMOID */
    double beta;            /* finite, > 0; default 0.1 */
    double label_smoothing; /* eps; default 0. In [0, 1]; ROBUST: [0, 0.5); EXO: (0, 1) */
    double gamma;           /* SIMPO; finite; default 0.5 */
    double delta;           /* BCO; finite; default 0 */
    double tau;             /* DISCOPOP; finite, > 0; default 0.05 */
    double lambda;          /* DPOP; finite, >= 0; default 5 */
    int32_t divergence;     /* prefopt_divergence; default REVERSE_KL; SIGMOID, HINGE, IPO_SUM,
                               ROBUST and EXO alone */
    uint32_t reserved;
    double alpha; /* DIVERGENCE_ALPHA; finite, not 1; default 0.5 */
} prefopt_dpo_options;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_dpo_options_init(prefopt_dpo_options *options, uint32_t struct_size);

/* The loss of options->variant (see prefopt_dpo_variant) and its gradients with respect to the
 * policy's log-probabilities; the reference is a constant.
 *
 * With l(chosen, rejected) the variant's loss of one pair, the pair's loss is
 * label * l(chosen, rejected) + (1 - label) * l(rejected, chosen): references and lengths are
 * exchanged along, margin, gamma and delta stay. Label 0 is hence the pair written the other way
 * round.
 *
 * The AOT variants compare sorted batches: they take no weight, label or margin; each[i] is the
 * loss at the rank that pair i's difference (AOT) or pair i's a (AOT_UNPAIRED) has; equal values
 * are ranked by index. They allocate 48 n bytes with malloc for the call.
 *
 * options NULL: defaults. An option or array that the variant does not use is ARGUMENT.
 * Errors: ARGUMENT, NUMERIC (see prefopt_pair_loss), VERSION, MEMORY (AOT variants alone).
 * Since 0.1. */
PREFOPT_API int32_t prefopt_loss_dpo(const prefopt_dpo_options *options,
                                     const prefopt_pair_scores *in, prefopt_pair_loss *out);

/* ---------------------------------------------------------------- unpaired examples: KTO */

/* n single completions, each known as desirable or not. Arrays are borrowed. */
typedef struct prefopt_kto_scores {
    uint32_t struct_size, reserved;
    int64_t n;
    const double *logp;       /* n: policy log-probabilities, finite or -INFINITY */
    const double *ref_logp;   /* n: the reference's; NULL: 0 */
    const int32_t *desirable; /* n: 1 desirable, 0 undesirable */
    const double *weight;     /* n, finite and >= 0; NULL: 1 */
} prefopt_kto_scores;

typedef struct prefopt_kto_options {
    uint32_t struct_size;
    uint32_t reserved;
    double beta;               /* finite, > 0; default 0.1 */
    double kl;                 /* z0, an estimate of KL(policy || reference), finite, >= 0;
                                  default 0 */
    double lambda_desirable;   /* finite, >= 0; default 1 */
    double lambda_undesirable; /* finite, >= 0; default 1 */
} prefopt_kto_options;

/* As prefopt_pair_loss, with one gradient. */
typedef struct prefopt_kto_loss {
    uint32_t struct_size, reserved;
    double mean;       /* out: sum(weight * each) / sum(weight) */
    double *each;      /* n, or NULL */
    double *grad_logp; /* n, or NULL: d mean / d logp */
} prefopt_kto_loss;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_kto_options_init(prefopt_kto_options *options, uint32_t struct_size);

/* KTO (arXiv 2402.01306, eq. 8): with u = logp - ref_logp and z0 = kl,
 *
 *     desirable:   lambda_desirable   (1 - sigma(beta (u - z0)))
 *     undesirable: lambda_undesirable (1 - sigma(beta (z0 - u)))
 *
 * z0 is the caller's, a constant: no gradient flows through it. The paper estimates it on
 * mismatched completions and cuts it off at 0.
 *
 * options NULL: defaults. Corners as in prefopt_pair_loss: both log-probabilities -INFINITY at
 * positive weight is NUMERIC.
 * Errors: ARGUMENT, NUMERIC, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_loss_kto(const prefopt_kto_options *options,
                                     const prefopt_kto_scores *in, prefopt_kto_loss *out);

/* ---------------------------------------------------------------- rankings: Plackett-Luce */

/* n rankings laid end to end: ranking i has the items offsets[i] .. offsets[i+1] - 1, best first.
 * Arrays are borrowed. */
typedef struct prefopt_ranking_scores {
    uint32_t struct_size, reserved;
    int64_t n;
    const int64_t *offsets;  /* n + 1, from 0, not descending; not NULL even when n = 0 */
    const double *score;     /* offsets[n]: rewards or policy log-probabilities, finite or
                                -INFINITY */
    const double *ref_logp;  /* offsets[n]: reference log-probabilities; NULL: 0 */
    const double *weight;    /* n, finite and >= 0; NULL: 1 */
    const int64_t *n_ranked; /* n, 0 to the number of items: only so many are ranked, the others are
                                behind them in no order; NULL: all are ranked */
} prefopt_ranking_scores;

typedef struct prefopt_pl_options {
    uint32_t struct_size;
    uint32_t reserved;
    double beta; /* finite, > 0; default 1 */
} prefopt_pl_options;

/* As prefopt_pair_loss, one loss a ranking and one gradient an item; grad_score does not overlap
 * the inputs. */
typedef struct prefopt_ranking_loss {
    uint32_t struct_size, reserved;
    double mean;        /* out: sum(weight * each) / sum(weight) */
    double *each;       /* n, or NULL */
    double *grad_score; /* offsets[n], or NULL: d mean / d score */
} prefopt_ranking_loss;

/* Fills options with the defaults. Errors: ARGUMENT (NULL), VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_pl_options_init(prefopt_pl_options *options, uint32_t struct_size);

/* Plackett-Luce (Plackett 1975; as a DPO loss, arXiv 2305.18290 appendix A.3): the best is chosen
 * among all, the next among the rest, and so on. With s_j = beta (score_j - ref_logp_j) a ranking
 * of k items of which the first m are ranked has the loss
 *
 *     -sum over i < m of [ s_i - log(sum over j >= i of exp(s_j)) ]
 *
 * For k = 2 it is Bradley-Terry (or DPO). Rankings of fewer than two items have loss 0.
 *
 * options NULL: defaults. A stage at which everything left has s = -INFINITY, or two things
 * +INFINITY, has no value: NUMERIC names the ranking, unless its weight is 0.
 * Errors: ARGUMENT, NUMERIC, VERSION. Since 0.1. */
PREFOPT_API int32_t prefopt_loss_plackett_luce(const prefopt_pl_options *options,
                                               const prefopt_ranking_scores *in,
                                               prefopt_ranking_loss *out);

/* ---------------------------------------------------------------- the optimum of J */

/* The soft-optimal policy: the maximiser of J(pi) = E_pi[reward] - beta KL(pi || pi_ref) over the n
 * completions of one prompt (lecture 22.1; its equation prints the KL with a plus, a slip):
 *
 *     log pi(y) = ref_logp(y) + reward(y) / beta - log Z,
 *     log Z = log(sum over y of exp(ref_logp(y) + reward(y) / beta)),
 *     max J = beta log Z   (for a normalised ref_logp)
 *
 * ref_logp: n, finite or -INFINITY, which stays -INFINITY whatever the reward: the reverse KL puts
 * no mass where the reference has none. reward: n, finite or -INFINITY (never). beta: finite, > 0.
 * logp: n, out; may be ref_logp or reward itself. log_partition: out, log Z, or NULL. n = 0: log Z
 * is -INFINITY.
 * Errors: ARGUMENT; NUMERIC (a value of the arrays, or no completion has a finite ref_logp and
 * reward). Since 0.1. */
PREFOPT_API int32_t prefopt_soft_optimal(int64_t n, const double *ref_logp, const double *reward,
                                         double beta, double *logp, double *log_partition);

#ifdef __cplusplus
}
#endif

/* The rest of the room: KL divergences, policy gradients, log-probabilities from logits. */
#include "kl.h"
#include "logits.h"
#include "policy_gradient.h"
#include "ppo.h"

#endif

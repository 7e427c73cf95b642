/* A world small enough to enumerate, for the study of the generation-verification gap: prompts,
 * all completions, a true reward, pairs drawn from the reference and labelled by Bradley-Terry. */
#ifndef EXAMPLE_EXACT_WORLD_H
#define EXAMPLE_EXACT_WORLD_H

#include <prefopt/prefopt.h>

enum { WORLD_VOCAB = 3, WORLD_PROMPTS = 4 };

typedef enum {
    REWARD_FEATURES, /* linear in a few features of the completion, the same for every prompt */
    REWARD_TABLE /* a number of its own for each prompt and completion: nothing simple to learn */
} reward_kind;

typedef struct {
    uint64_t seed;
    int horizon;
    double beta;
    prefopt_context *context;
    prefopt_space space;
    prefopt_dataset *prompts, *all; /* a row a prompt; all completions of each */
    prefopt_sequences sequences;    /* of all */
    int64_t n_sequences, n_each;    /* completions altogether, and of one prompt */
    int64_t n_features;
    double *features;             /* [n_sequences, n_features]: what a simple verifier looks at */
    double *reward;               /* the truth */
    prefopt_reference *reference; /* uniform */
    prefopt_reward *truth;
} world;

/* one_feature_each: the verifier sees which completion it is, so that its class is isomorphic to
 * the policies (and prompts do not help one another). */
void world_create(world *w, uint64_t seed, int horizon, reward_kind kind, int one_feature_each,
                  double beta);
void world_destroy(world *w);

/* Pairs first .. first + n - 1 of the world's stream: so fewer pairs are a part of more. */
prefopt_dataset *world_pairs(const world *w, int64_t first, int64_t n);

/* A tabular policy over the world's prompts, uniform to start with. */
prefopt_policy *world_policy(const world *w);

/* How far a policy goes from the reference (0) to the best there is (1) in J = E[r] - beta KL. */
double world_score(const world *w, prefopt_policy *policy);

#endif

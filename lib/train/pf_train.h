/* Internal face of the trainers: what the loop and the fit know of an objective, the rows of the
 * data, the optimiser.
 *
 * An objective is one short file: a pf_objective, its state, and its create call, which fills a
 * trainer made by pf_trainer_new. The loop and the fit know no objective; they call evaluate. */
#ifndef PF_TRAIN_H
#define PF_TRAIN_H

#include "base/pf_base.h"
#include "data/pf_data.h"
#include "model/pf_model.h"
#include "prefopt/train.h"

/* See pf_saved.h. */
typedef struct pf_describe pf_describe;
typedef struct pf_save pf_save;
typedef struct pf_saved pf_saved;

/* ---- options (train_options.c) */

extern const prefopt_train_options pf_train_defaults;

/* Reads the caller's options (NULL: defaults) and checks every field. */
int32_t pf_train_options_read(prefopt_train_options *own, const prefopt_train_options *options);

/* ---- the rate (schedule.c): of the step numbered `step` from 0 */
double pf_learning_rate(const prefopt_train_options *options, int64_t step);

/* ---- what is trained (trained.c): a policy's log-probabilities or a reward model's scores */
typedef struct pf_trained {
    prefopt_policy *policy; /* one of the two is NULL; both are kept */
    prefopt_reward *reward;
} pf_trained;

prefopt_context *pf_trained_context(const pf_trained *model);
bool pf_trained_has_backward(const pf_trained *model);
int32_t pf_trained_class(const pf_trained *model); /* pf_score_class */
/* n scores, of a checked view; on failure the array holds anything. */
int32_t pf_trained_scores(const pf_trained *model, const prefopt_sequences *in, double *score);
/* The same where nobody asks for the way back: nothing is kept for it. */
int32_t pf_trained_glance(const pf_trained *model, const prefopt_sequences *in, double *score);
/* In parts that the model keeps (pf_trained_keeps), where it keeps less than all. */
int32_t pf_trained_backward(const pf_trained *model, const prefopt_sequences *in,
                            const double *grad_score);
/* Whether the model can say how much it keeps between scores and backward; and how many sequences
 * of a view (n >= 1), from the first on, a part of it should have: what the model keeps, but less
 * where that spares cutting a run of sequences with one prompt that would fit whole. A negative
 * status when the model cannot say. */
bool pf_trained_splits(const pf_trained *model);
/* Where the k-th of a transformer's one-dimensional tensors (norms, biases) lies among its
 * parameters, in order; false past the last, and for other models. */
bool pf_trained_vector(const pf_trained *model, int64_t k, int64_t *offset, int64_t *n);
int64_t pf_trained_keeps(const pf_trained *model, const prefopt_sequences *in);
int32_t pf_trained_parameters(const pf_trained *model, prefopt_parameters *out);
int32_t pf_trained_values(const pf_trained *model, pf_values *out); /* pf_policy_values */
int32_t pf_trained_updated(const pf_trained *model);
int32_t pf_trained_zero_grad(const pf_trained *model);

/* ---- the optimiser (optimiser.c)
 *
 * Works on up to two slots: the model's parameters, and those of the objective's own (the tie
 * parameter). Parameters that are not finite (logits of -infinity) are left as they are. */
typedef struct pf_span {
    int64_t low, high; /* elements low .. high - 1 */
} pf_span;

typedef struct pf_slot {
    int32_t dtype; /* PREFOPT_F64 or PREFOPT_F32: of all four arrays */
    int64_t n;
    void *value, *grad;
    void *first, *second; /* moments, owned; NULL where the optimiser has none */
    int64_t n_whole;      /* spans that weight decay leaves as they are, in order; owned */
    pf_span *whole;
} pf_slot;

typedef struct pf_optimiser {
    prefopt_context *context; /* borrowed */
    prefopt_train_options options;
    pf_slot slots[2];
    int32_t n_slots;
    int64_t steps;    /* taken: the exponent of Adam's bias corrections */
    int64_t n_chunks; /* of all slots */
    double *partial;  /* n_chunks */
    double *largest;  /* n_chunks; in partial's memory */
    /* Bounds of what is in the arrays: of gradients and values, found with the norm (NaN when that
     * is not known), and of moments. */
    double grad_norm, largest_value, moment_bound;
} pf_optimiser;

int32_t pf_optimiser_init(pf_optimiser *optimiser, prefopt_context *context,
                          const prefopt_train_options *options);
int32_t pf_optimiser_add(pf_optimiser *optimiser, const prefopt_parameters *parameters);
/* Leaves the model's one-dimensional tensors out of slot 0's weight decay. MEMORY. */
int32_t pf_optimiser_spare_vectors(pf_optimiser *optimiser, const pf_trained *model);
void pf_optimiser_clear(pf_optimiser *optimiser);
/* Returns strength / 2 * sum of value^2 over slot 0; add: adds its gradient too. */
double pf_optimiser_ridge(pf_optimiser *optimiser, double strength, bool add);
/* The norm of the gradients, to be asked before each step: it bounds what the step can do. */
double pf_optimiser_grad_norm(pf_optimiser *optimiser);
/* One step at this rate with gradients times `scale`. False, and nothing changed, when a parameter
 * would not be finite. Without the norm of the same gradients the step takes twice as long. */
bool pf_optimiser_step(pf_optimiser *optimiser, double rate, double scale);

/* ---- the rows (trainer_rows.c)
 *
 * A copy of the data in the form that training wants: each distinct sequence once, and rows by
 * index. Models see each distinct sequence of a batch once, however many rows it is in. */
typedef struct pf_rows {
    prefopt_context *context; /* borrowed */
    int64_t n;                /* rows */
    int64_t n_slots;          /* sequences of all rows, row by row */
    int64_t n_distinct;
    pf_sequence_map *map;            /* the distinct ones */
    int64_t *first;                  /* n + 1: the slots of row i */
    int64_t *sequence;               /* n_slots: which distinct sequence */
    int64_t *length;                 /* n_distinct: tokens of the completion */
    int64_t *group;                  /* n_distinct: number of its prompt, in order of appearance */
    int32_t *kind;                   /* n */
    double *weight, *label, *margin; /* n each */
    int64_t n_groups;
    bool weighted, labelled, margined; /* some weight is not 1, label not 1, margin not 0 */
    double total_weight;
    int64_t max_row; /* the most sequences a row has */
} pf_rows;

int32_t pf_rows_create(pf_rows **out, prefopt_context *context, const prefopt_dataset *data);
void pf_rows_destroy(pf_rows *rows);
/* Other weights than the dataset's, n of them; *total: their sum. ARGUMENT when it is not > 0. */
int32_t pf_rows_set_weights(pf_rows *rows, const double *weight, double *total);
/* The most sequences that a step's `batch` rows can have. MEMORY when that overflows. */
int32_t pf_rows_max_slots(const pf_rows *rows, int64_t batch, int64_t *slots);
/* Distinct sequence i as text, shortened: "prompt [7], completion [1 2]". */
enum { PF_SEQUENCE_TEXT = 128 };
const char *pf_rows_text(const pf_rows *rows, int64_t distinct, char text[PF_SEQUENCE_TEXT]);

/* The rows of one step: all of them, or a part whose distinct sequences are gathered. */
typedef struct pf_batch {
    int64_t n;                   /* rows */
    const int64_t *rows;         /* n, or NULL: all in order */
    prefopt_sequences sequences; /* the distinct ones */
    const int64_t *distinct;     /* sequences.n: numbers in the rows' map; NULL: 0, 1, 2 ... */
    int64_t n_slots;
    const int64_t *slot; /* n_slots, row by row: index into sequences */
} pf_batch;

static inline int64_t pf_batch_row(const pf_batch *batch, int64_t k)
{
    return batch->rows == NULL ? k : batch->rows[k];
}
static inline int64_t pf_batch_distinct(const pf_batch *batch, int64_t i)
{
    return batch->distinct == NULL ? i : batch->distinct[i];
}

/* ---- chosen rows with their distinct sequences, in order of first appearance (gather.c) */
typedef struct pf_gather {
    prefopt_context *context; /* borrowed */
    const pf_rows *rows;      /* borrowed */
    int64_t *stamp;           /* n_distinct: index in the last gathering, where seen[] says so */
    int64_t *seen;            /* n_distinct: the gathering that wrote stamp */
    int64_t gathering;
    int64_t *distinct, *slot, *offsets, *prompt_len; /* of the last gathering */
    int32_t *tokens;
} pf_gather;

/* Room for any `capacity` rows. On failure nothing is kept. */
int32_t pf_gather_init(pf_gather *gather, prefopt_context *context, const pf_rows *rows,
                       int64_t capacity);
void pf_gather_clear(pf_gather *gather);
/* *out borrows `chosen` and the gather's arrays until the next gathering. */
void pf_gather_rows(pf_gather *gather, const int64_t *chosen, int64_t n_chosen, pf_batch *out);

/* ---- which rows a step takes (batches.c): position p of an endless sequence of shuffled epochs is
 * taken by step p / batch, so that a step is known by its number alone. */
typedef struct pf_batches {
    prefopt_context *context; /* borrowed */
    const pf_rows *rows;      /* borrowed; NULL: row numbers alone are wanted */
    int64_t n, batch;         /* batch = n: all, in order */
    uint64_t seed;
    int64_t epoch;   /* of `order`; -1: none yet */
    int64_t *order;  /* n */
    int64_t *chosen; /* batch: the rows of the step */
    pf_gather gather;
} pf_batches;

/* On failure nothing is kept. */
int32_t pf_batches_init(pf_batches *batches, prefopt_context *context, const pf_rows *rows,
                        int64_t n, int64_t batch, uint64_t seed);
void pf_batches_clear(pf_batches *batches);
void pf_batches_all(const pf_batches *batches, pf_batch *out);
void pf_batches_take(pf_batches *batches, int64_t step, pf_batch *out);
/* First part of the stream of the permutations. */
#define PF_STREAM_BATCHES UINT64_C(0x6261746368)

/* ---- a batch in parts that the model keeps, or that are small enough for the caller (parts.c) */
typedef struct pf_parts {
    pf_gather gather;
    int64_t *rows;    /* of the part; NULL: the batch is never split */
    int64_t capacity; /* rows of a part at most: a fit's batch is all the data */
} pf_parts;

int32_t pf_parts_init(pf_parts *parts, prefopt_context *context, const pf_rows *rows,
                      int64_t capacity);
void pf_parts_clear(pf_parts *parts);
/* The objective's evaluate with gradient, part by part where the model does not keep the batch. */
int32_t pf_parts_evaluate(prefopt_trainer *trainer, prefopt_progress *stats);
double pf_batch_weight(const pf_rows *rows, const pf_batch *batch);

/* ---- statistics of parts into those of the whole batch (tally.c): doubles, which ranks can sum */
enum { PF_TALLY_FIELDS = 10 };

typedef struct pf_tally {
    double sum[PF_TALLY_FIELDS];
    double parts[PF_TALLY_FIELDS]; /* that have the number */
    double counted, extra_grad;
} pf_tally;

/* A part with `share` of the batch's weight, and trainer->counted and extra_grad as it left them.
 */
void pf_tally_add(pf_tally *tally, const prefopt_trainer *trainer, double share,
                  const prefopt_progress *part);
void pf_tally_write(const pf_tally *tally, prefopt_trainer *trainer, prefopt_progress *stats);

/* ---- ranks that train one model together (collective.c) */
typedef struct pf_ranks {
    prefopt_collective calls; /* size 1: this process alone, and none is called */
    double *numbers;          /* what is summed at once: a status of each rank, a tally */
    pf_parts part;            /* room for this rank's part of a batch */
    bool shared;              /* the parameters are rank 0's */
    bool agreed;              /* all ranks have the same failure */
} pf_ranks;

int32_t pf_ranks_read(pf_ranks *ranks, const prefopt_collective *callers);
/* Room for what is summed. MEMORY. */
int32_t pf_ranks_init(pf_ranks *ranks, prefopt_context *context);
/* UNSUPPORTED where a step cannot be shared. */
int32_t pf_ranks_check(const prefopt_trainer *trainer);
void pf_ranks_clear(pf_ranks *ranks, prefopt_context *context);
/* Room for this rank's part of a batch of the trainer's rows. */
int32_t pf_ranks_lay_out(prefopt_trainer *trainer);
/* A call of all ranks has failed before it had a trainer: a failure of all, where the options' own
 * collective can be read. */
int32_t pf_ranks_refuse(const prefopt_train_options *options, prefopt_context *context,
                        int32_t status);
/* Before the steps of a run: what must be the same is; the first time all take rank 0's parameters.
 * A status that is not PREFOPT_OK is a failure of all. */
int32_t pf_ranks_begin(prefopt_trainer *trainer, int64_t n_steps, int32_t status);
/* pf_trainer_gradient of the whole batch, each rank its part. A failure on one rank is one on all.
 */
int32_t pf_ranks_gradient(prefopt_trainer *trainer, prefopt_progress *stats);
/* The loss and statistics of the whole batch of held_out, of which each rank evaluates its part; a
 * status that is not PREFOPT_OK is a failure of all. */
int32_t pf_ranks_evaluate(pf_ranks *ranks, prefopt_trainer *held_out, int32_t status,
                          prefopt_progress *stats);
/* The norm of the gradient is not finite: pf_trainer_name_gradient, by a rank whose part is not. */
int32_t pf_ranks_blame(prefopt_trainer *trainer, double norm);
/* ---- for the files of the ranks (collective.c, rank_terms.c, rank_reference.c,
 * rank_samples.c) */
bool pf_ranks_alone(const pf_ranks *ranks);
/* Of n rows in order, those of one rank. */
void pf_ranks_part(const pf_ranks *ranks, int64_t rank, int64_t n, int64_t *first, int64_t *count);
/* The collective's callbacks; CALLBACK when they fail. */
int32_t pf_ranks_sum(pf_ranks *ranks, double *values, int64_t n);
int32_t pf_ranks_broadcast(pf_ranks *ranks, void *bytes, int64_t n, int64_t root);
/* Statuses, and tallies (NULL: none), which become their sum. */
int32_t pf_ranks_exchange(pf_ranks *ranks, int32_t status, pf_tally *tally);

/* The status of all: the first rank's failure, else STOPPED where one stops, else OK. */
int32_t pf_ranks_agree(pf_ranks *ranks, int32_t status);

/* ---- the trainer (trainer.c, loop.c, fit.c) */

typedef struct pf_objective {
    const char *name; /* begins error texts */
    bool sampled;     /* run alone: no fit, no loss of the whole data */
    bool score_prior; /* takes options.score_ridge */
    /* May be NULL: the rows that trainer->batches has for the step. Puts the rows of the step
     * numbered trainer->step into trainer->batch. A failure is one on all ranks. */
    int32_t (*begin)(prefopt_trainer *trainer);
    /* The loss of trainer->batch at the parameters now, into stats (loss, and what else of
     * accuracy, margin, kl, reward the objective has; the rest are NaN); with_grad: adds its
     * gradient to the model's and to extra_grad. Names the row when a number is not finite. Sets
     * trainer->no_step when there is nothing to learn from. */
    int32_t (*evaluate)(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats);
    /* May be NULL. UNBOUNDED when no finite optimum exists. */
    int32_t (*exists)(prefopt_trainer *trainer);
    /* May be NULL. Where the optimum is known in closed form: writes it and sets *solved. */
    int32_t (*solve)(prefopt_trainer *trainer, bool *solved);
    /* May be NULL. A trainer of held-out data with the same loss, by pf_trainer_new_held_out;
     * reference as at create. The data are of the kind of the trainer's rows (pairs, where it has
     * none). On failure *out may be there: the caller destroys it. */
    int32_t (*held_out)(prefopt_trainer **out, const prefopt_trainer *trainer,
                        const prefopt_reference *reference, const prefopt_dataset *data);
    void (*destroy)(prefopt_trainer *trainer); /* releases state's content */
    /* For saving (pf_saved.h); each may be NULL. Options of the objective's own, which must be the
     * same when a run goes on; */
    void (*describe)(const prefopt_trainer *trainer, pf_describe *to);
    /* what the next step depends on beside the parameters, the optimiser, the step and options; */
    int32_t (*save)(const prefopt_trainer *trainer, pf_save *to);
    /* and back. On failure the state is as before. The last of all that can fail: step and model
     * are those of the checkpoint already. */
    int32_t (*restore)(prefopt_trainer *trainer, const pf_saved *from);
} pf_objective;

struct pf_evaluation; /* pf_evaluation.h */

/* What all steps of a round tell; number -1 and NaN where there is none. */
typedef struct pf_round_facts {
    int64_t number, tokens, pairs, ties, duplicates;
    double kl; /* NaN: the steps' own */
    double reward, ended, score_mean, score_sd;
} pf_round_facts;

struct prefopt_trainer {
    prefopt_context *context;
    prefopt_train_options options;
    const pf_objective *objective;
    void *state; /* the objective's own */
    pf_trained model;
    pf_rows *rows; /* of sampled objectives: what the round at hand learns from; may be NULL */
    pf_batches batches;
    pf_batch batch; /* what evaluate looks at */
    pf_optimiser optimiser;
    double total_weight;
    double extra, extra_grad; /* a parameter of the objective's own */
    double extra_low;         /* its least value */
    bool has_extra;
    bool no_step;
    bool coupled; /* the loss is no mean over rows: evaluated whole, however large */
    pf_parts parts;
    pf_ranks ranks;
    double share;   /* of the batch's weight that the part at hand has: 1 when it is the batch */
    double counted; /* the weight that its accuracy, margin and scores are means over */
    int64_t step;   /* taken since the trainer was made, or the run began that it goes on with */
    uint64_t data_hash;
    struct pf_evaluation *evaluation; /* NULL: none */
    bool only_evaluates;              /* held-out data: there is no optimiser */
    double *score, *grad_score;       /* the largest batch's distinct sequences, or n_distinct */
    pf_round_facts round;
    double seconds_sampling, seconds_scoring; /* since run was called */
};

/* A trainer with its rows (data may be NULL: see pf_trainer_rows), batches and options; state is
 * cleared memory of state_size. On failure the objective calls prefopt_trainer_destroy. */
int32_t pf_trainer_new(prefopt_trainer **out, const pf_objective *objective, size_t state_size,
                       pf_trained model, const prefopt_train_options *options);
/* The same for held-out data of `trainer`: only the rows' loss, no ridges, all rows at once, on
 * several ranks a part of them; an objective's fill does the rest. */
int32_t pf_trainer_new_held_out(prefopt_trainer **out, const prefopt_trainer *trainer,
                                const pf_objective *objective, size_t state_size);
/* Takes the rows of data, makes room for batches and scores. */
int32_t pf_trainer_rows(prefopt_trainer *trainer, const prefopt_dataset *data);
/* The same with batches of another size and order; trainer->total_weight is the caller's. */
int32_t pf_trainer_lay_out(prefopt_trainer *trainer, const prefopt_dataset *data, int64_t batch,
                           uint64_t seed);
/* Room for parts of the rows' batches, where the model and the loss have them. */
int32_t pf_trainer_parts(prefopt_trainer *trainer);
/* Gives the rows back, with everything that was made for them. */
void pf_trainer_clear_rows(prefopt_trainer *trainer);
/* The last act of a create call: the optimiser, over the parameters and extra. */
int32_t pf_trainer_ready(prefopt_trainer *trainer);

/* Scores of the batch's distinct sequences into trainer->score; failures name the row. */
int32_t pf_trainer_scores(prefopt_trainer *trainer);
/* The text of a failure (bad_rows.c), and its status: of a batch that the model refused or
 * gave a bad number for, the row; of a batch whose gradient has a norm that is not finite, the
 * first row for which that holds alone. The model's gradient is then anything. */
int32_t pf_trainer_name_scores(prefopt_trainer *trainer, int32_t status);
int32_t pf_trainer_name_gradient(prefopt_trainer *trainer, double norm);
/* Takes trainer->grad_score, times trainer->share, back to the parameters. */
int32_t pf_trainer_backward(prefopt_trainer *trainer);
/* Clears the gradient; clears it and adds that of the batch, times trainer->share. */
int32_t pf_trainer_begin_gradient(prefopt_trainer *trainer);
int32_t pf_trainer_gradient(prefopt_trainer *trainer, prefopt_progress *stats);
/* evaluate, over all ranks, and the ridge on the parameters. Gradients are cleared first. */
int32_t pf_trainer_evaluate(prefopt_trainer *trainer, bool with_grad, prefopt_progress *stats);
void pf_progress_clear(prefopt_progress *progress);
void pf_round_facts_clear(pf_round_facts *facts);
double pf_now(void); /* seconds, of a clock that only goes on (loop.c) */

/* ---- sums over pairs (of rankings: neighbours) by weight (pair_batch.c) */
typedef struct pf_pair_sums {
    double total, right, margin, chosen, rejected;
    double chosen_logp, rejected_logp; /* with references: without them */
} pf_pair_sums;

/* Scores are scale * (chosen - ref_chosen) and so on; weight > 0. */
void pf_pair_sums_add(pf_pair_sums *sums, double weight, double scale, const double score[2],
                      const double ref[2]);
/* Their means: accuracy, margin, scores, and a policy's log-probabilities; nothing where the total
 * is 0. */
void pf_pair_sums_write(const pf_pair_sums *sums, bool policy, prefopt_progress *stats);

/* ---- pairs of the batch as arrays (pair_batch.c) */
typedef struct pf_pair_batch {
    prefopt_context *context;
    double *chosen, *rejected, *ref_chosen, *ref_rejected, *weight, *label, *margin;
    int64_t *len_chosen, *len_rejected;
    double *each, *grad_chosen, *grad_rejected;
} pf_pair_batch;

enum { PF_PAIR_REFERENCES = 1, PF_PAIR_LENGTHS = 2 };

int32_t pf_pair_batch_init(pf_pair_batch *pairs, prefopt_context *context, int64_t capacity,
                           int32_t parts);
void pf_pair_batch_clear(pf_pair_batch *pairs);
/* Arrays of the trainer's batch from trainer->score. ref: n_distinct, or NULL. Fills in and out:
 * what the data does not use stays NULL. */
void pf_pair_batch_gather(pf_pair_batch *pairs, const prefopt_trainer *trainer, const double *ref,
                          prefopt_pair_scores *in, prefopt_pair_loss *out);
/* The statistics of pf_pair_sums over the pairs with weight. */
void pf_pair_batch_stats(const pf_pair_batch *pairs, const prefopt_pair_scores *in, double scale,
                         bool policy, prefopt_progress *stats);
/* Names the row of a loss that is not finite; then adds the gradients to trainer->grad_score. */
int32_t pf_pair_batch_scatter(pf_pair_batch *pairs, prefopt_trainer *trainer, double loss);

/* ---- rankings of the batch (ranking_batch.c) */
typedef struct pf_ranking_batch {
    prefopt_context *context;
    int64_t *offsets;
    double *score, *ref, *weight, *each, *grad; /* ref: NULL without references */
} pf_ranking_batch;

int32_t pf_ranking_batch_init(pf_ranking_batch *rankings, prefopt_context *context,
                              const pf_rows *rows, int64_t batch, bool references);
void pf_ranking_batch_clear(pf_ranking_batch *rankings);
/* The loss and statistics of the trainer's batch from trainer->score, its gradient into
 * trainer->grad_score. ref: n_distinct, or NULL. */
int32_t pf_ranking_batch_evaluate(pf_ranking_batch *rankings, prefopt_trainer *trainer,
                                  const double *ref, double beta, prefopt_progress *stats);

/* Whether the rows are rankings (true) or pairs; ARGUMENT when they are mixed or neither. */
int32_t pf_rows_are_rankings(const pf_rows *rows, const char *objective, bool *rankings);
/* Writes log-probabilities of all distinct sequences (n_distinct, each prompt's summing to 1) into
 * a tabular policy. */
int32_t pf_trainer_set_logprobs(prefopt_trainer *trainer, const double *logp);
/* Every row is of this kind, or ARGUMENT naming the first that is not. */
int32_t pf_rows_require(const pf_rows *rows, const char *objective, int32_t kind);
int32_t pf_kinds_require(const int32_t *kinds, int64_t n, const char *objective, int32_t kind);

/* The prior on scores (score_prior.c): adds 1/2 strength * sum over the prompts' distinct sequences
 * of (scale * (score - ref) - mean)^2 to *loss, its gradient to grad_score. ref: NULL, or
 * n_distinct; sequences whose reference is -infinity have no part. The batch is all rows. */
int32_t pf_score_prior(const prefopt_trainer *trainer, double scale, const double *ref,
                       double *group_work /* 2 n_groups */, double *loss);

/* ---- whether a finite optimum exists (existence.c, separation.c) */

/* Decides it for the trainer's rows and the model's class, and fails with UNBOUNDED and a text that
 * names the sequences and ends with way_out. For losses that fall for ever as the winner's score
 * rises over the loser's. ref: n_distinct reference log-probabilities, or NULL; sequences where it
 * is -infinity have no part. smoothing > 0: every pair counts in both directions. With
 * trainer->has_extra labels of 0.5 are ties. prior: scores are held by a ridge. */
int32_t pf_exists(prefopt_trainer *trainer, const double *ref, double smoothing, bool prior,
                  const char *way_out);

/* A direction theta with X theta >= 0 and not 0, for x: [m, k] rows of length 1 or 0. found:
 * whether there is one; then direction (k) holds it. */
int32_t pf_separation(prefopt_context *context, int64_t m, int64_t k, const double *x, bool *found,
                      double *direction);

#endif

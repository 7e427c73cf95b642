/* Loss and fit look at the whole data, whatever the batch of the steps. */
#include "train_test.h"

/* ---- an allocator whose blocks end in bytes that nobody should write */

enum { GUARD = 4096, MARK = 0xa5 };

typedef struct {
    uint64_t size, head;
} block_note;

static void *guarded_allocate(void *payload, uint64_t size, uint64_t alignment)
{
    (void)payload;
    uint64_t head = alignment > sizeof(block_note) ? alignment : 64;
    uint64_t all = (head + size + GUARD + alignment - 1) / alignment * alignment;
    char *block = aligned_alloc(alignment, all);
    if (block == NULL)
        return NULL;
    memcpy(block + head - sizeof(block_note), &(block_note){size, head}, sizeof(block_note));
    memset(block + head + size, MARK, GUARD);
    return block + head;
}

static void guarded_release(void *payload, void *pointer)
{
    block_note note;
    memcpy(&note, (char *)pointer - sizeof note, sizeof note);
    const unsigned char *guard = (unsigned char *)pointer + note.size;
    for (int i = 0; i < GUARD; i++)
        *(int64_t *)payload += guard[i] != MARK;
    free((char *)pointer - note.head);
}

static prefopt_context *guarded_context(int64_t *overwritten)
{
    prefopt_context_options options;
    OK(prefopt_context_options_init(&options, sizeof options));
    options.threads = 1;
    options.allocate = guarded_allocate;
    options.release = guarded_release;
    options.allocator_payload = overwritten;
    prefopt_context *context = NULL;
    OK(prefopt_context_create(&context, &options));
    return context;
}

/* ---- trainers of every objective with data */

enum { MLE, REWARD_PAIRS, REWARD_RANKINGS, DPO_PAIRS, DPO_RANKINGS, SIMPO_PAIRS, SOFT_RL, N_KINDS };

typedef struct {
    world w;
    prefopt_dataset *pairs, *rankings;
    prefopt_reward *reward;
    prefopt_reference *reference;
} things;

/* Each prompt's completions in `n` orders of their own. */
static prefopt_dataset *random_rankings(const world *w, uint64_t seed, int64_t n)
{
    prefopt_dataset *rankings;
    OK(prefopt_dataset_create(&rankings, w->context));
    for (int64_t i = 0; i < n * w->n_prompts; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        int64_t order[16], offsets[17] = {0};
        int32_t tokens[64];
        OK(prefopt_dataset_row(w->all, i % w->n_prompts, &row));
        ck_assert_int_le(row.n_completions, 16);
        OK(prefopt_shuffle_order(seed, (uint64_t)i, row.n_completions, order));
        for (int64_t k = 0; k < row.n_completions; k++) {
            int64_t from = row.completion_offsets[order[k]];
            int64_t length = row.completion_offsets[order[k] + 1] - from;
            memcpy(tokens + offsets[k], row.completions + from, (size_t)length * sizeof *tokens);
            offsets[k + 1] = offsets[k] + length;
        }
        row.kind = PREFOPT_ROW_RANKING;
        row.completions = tokens;
        row.completion_offsets = offsets;
        row.logp = NULL;
        row.weight = 0.5 + uniform(seed, (uint64_t)i);
        OK(prefopt_dataset_append(rankings, &row));
    }
    return rankings;
}

static things things_new(prefopt_context *context)
{
    things t = {.w = world_new(context, 4, 3, 1, -1)};
    t.pairs = random_pairs(&t.w, 3, 5);
    t.rankings = random_rankings(&t.w, 4, 5);
    t.reward = tabular_reward(&t.w, t.w.all);
    OK(prefopt_reference_create_uniform(&t.reference, context, &t.w.space));
    randomise(t.w.policy, 5, 1);
    prefopt_parameters p = {.struct_size = sizeof p};
    OK(prefopt_reward_parameters(t.reward, &p));
    OK(prefopt_random_normal(6, 0, 0, p.n, p.value));
    OK(prefopt_reward_updated(t.reward));
    return t;
}

static void things_free(things *t)
{
    prefopt_reference_destroy(t->reference);
    prefopt_reward_destroy(t->reward);
    prefopt_dataset_destroy(t->rankings);
    prefopt_dataset_destroy(t->pairs);
    world_free(&t->w);
}

static prefopt_trainer *trainer_new(const things *t, int kind, int64_t batch, int64_t micro_batch)
{
    prefopt_trainer *trainer = NULL;
    prefopt_train_options o = train_defaults();
    o.batch = batch;
    o.micro_batch = micro_batch;
    o.ridge = 0.1;
    prefopt_dpo_options simpo;
    OK(prefopt_dpo_options_init(&simpo, sizeof simpo));
    simpo.variant = PREFOPT_DPO_SIMPO;
    prefopt_policy *policy = t->w.policy;
    if (kind == MLE)
        OK(prefopt_trainer_create_mle(&trainer, policy, t->w.all, &o));
    else if (kind == REWARD_PAIRS || kind == REWARD_RANKINGS)
        OK(prefopt_trainer_create_reward(&trainer, t->reward,
                                         kind == REWARD_PAIRS ? t->pairs : t->rankings, NULL, &o));
    else if (kind == DPO_PAIRS || kind == DPO_RANKINGS)
        OK(prefopt_trainer_create_dpo(&trainer, policy, t->reference,
                                      kind == DPO_PAIRS ? t->pairs : t->rankings, NULL, &o));
    else if (kind == SIMPO_PAIRS)
        OK(prefopt_trainer_create_dpo(&trainer, policy, NULL, t->pairs, &simpo, &o));
    else
        OK(prefopt_trainer_create_soft_rl(&trainer, policy, t->reference, t->reward, t->w.prompts,
                                          0.5, &o));
    return trainer;
}

/* With steps of 1 row, 2 rows and all rows: the same number, and nothing beyond any block. */
START_TEST(loss_of_the_whole_data)
{
    for (int kind = 0; kind < N_KINDS; kind++) {
        double whole = 0;
        for (int64_t batch = 0; batch <= 2; batch++) {
            int64_t overwritten = 0;
            prefopt_context *context = guarded_context(&overwritten);
            things t = things_new(context);
            prefopt_trainer *trainer = trainer_new(&t, kind, batch, 0);
            double loss = 0, again = 0;
            OK(prefopt_trainer_loss(trainer, &loss));
            OK(prefopt_trainer_run(trainer, 2, NULL));
            OK(prefopt_trainer_loss(trainer, &again));
            ck_assert(again != loss);
            prefopt_trainer_destroy(trainer);
            things_free(&t);
            prefopt_context_destroy(context);
            ck_assert_msg(overwritten == 0, "kind %d, batch %d: %d bytes beyond a block", kind,
                          (int)batch, (int)overwritten);
            if (batch == 0)
                whole = loss;
            CLOSE(loss, whole, 0);
        }
    }
}
END_TEST

/* Steps of all rows or of one; then of one, in parts of so many rows that a step has fewer, but the
 * data more. */
START_TEST(fit_of_the_whole_data)
{
    static const int64_t batches[][2] = {{0, 0}, {1, 0}, {1, 1}, {1, 3}};
    for (int kind = 0; kind < N_KINDS; kind++) {
        double whole = 0;
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
            int64_t overwritten = 0;
            prefopt_context *context = guarded_context(&overwritten);
            things t = things_new(context);
            prefopt_trainer *trainer = trainer_new(&t, kind, batches[i][0], batches[i][1]);
            prefopt_progress result = {.struct_size = sizeof result};
            int32_t status = prefopt_trainer_fit(trainer, &result);
            if (status != PREFOPT_ERR_UNSUPPORTED) /* built without liblbfgs */
                OK(status);
            prefopt_trainer_destroy(trainer);
            things_free(&t);
            prefopt_context_destroy(context);
            ck_assert_msg(overwritten == 0, "kind %d, batch %d, micro_batch %d: %d bytes beyond",
                          kind, (int)batches[i][0], (int)batches[i][1], (int)overwritten);
            if (status == PREFOPT_ERR_UNSUPPORTED)
                continue;
            if (i == 0)
                whole = result.loss;
            CLOSE(result.loss, whole, 1e-12);
        }
    }
}
END_TEST

TEST_MAIN("whole data", loss_of_the_whole_data, fit_of_the_whole_data)

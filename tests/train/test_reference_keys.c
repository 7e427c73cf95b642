/* DPO on rows whose reference log-probabilities are stored with them: taken where their keys fit,
 * an error where they do not. */
#define _GNU_SOURCE
#include <unistd.h>

#include "small_transformer.h"
#include "train_test.h"

static prefopt_dataset *small_pairs(prefopt_context *context, int32_t first, int32_t n)
{
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    for (int32_t i = first; i < first + n; i++) {
        int32_t prompt[] = {i, 11}, chosen[] = {(i + 1) % 10, 3}, rejected[] = {(i + 2) % 10, 4, 5};
        OK(prefopt_dataset_append_pair(data, prompt, 2, chosen, 2, rejected, 3, 1, 1, 0));
    }
    return data;
}

static void append_all(prefopt_dataset *to, const prefopt_dataset *from)
{
    for (int64_t i = 0; i < prefopt_dataset_size(from); i++) {
        prefopt_row row = {.struct_size = sizeof row};
        OK(prefopt_dataset_row(from, i, &row));
        OK(prefopt_dataset_append(to, &row));
    }
}

static double loss_of(prefopt_policy *policy, const prefopt_reference *reference,
                      const prefopt_dataset *data)
{
    prefopt_trainer *trainer = NULL;
    double loss;
    OK(prefopt_trainer_create_dpo(&trainer, policy, reference, data, NULL, NULL));
    OK(prefopt_trainer_loss(trainer, &loss));
    prefopt_trainer_destroy(trainer);
    return loss;
}

typedef struct {
    prefopt_context *context;
    prefopt_policy *policy;
    prefopt_reference *reference, *other;
    prefopt_dataset *data;
} small_world;

static small_world set_up(void)
{
    small_world w = {.context = test_context(1)};
    prefopt_policy *other = small_policy(w.context, 6);
    w.policy = small_policy(w.context, 5);
    OK(prefopt_reference_freeze(&w.reference, w.policy));
    OK(prefopt_reference_freeze(&w.other, other));
    w.data = small_pairs(w.context, 0, 6);
    prefopt_policy_destroy(other);
    return w;
}

static void tear_down(small_world *w)
{
    prefopt_policy_destroy(w->policy);
    prefopt_reference_destroy(w->reference);
    prefopt_reference_destroy(w->other);
    prefopt_dataset_destroy(w->data);
    prefopt_context_destroy(w->context);
}

START_TEST(stored_numbers_are_taken)
{
    small_world w = set_up();
    double scored = loss_of(w.policy, w.other, w.data);
    OK(prefopt_reference_annotate(w.other, w.data, NULL, NULL));
    CLOSE(loss_of(w.policy, w.other, w.data), scored, 1e-6);
    /* Taken, not scored again: shifted numbers with the keys of the true ones show in the loss. */
    prefopt_dataset *shifted;
    OK(prefopt_dataset_create(&shifted, w.context));
    for (int64_t i = 0; i < 6; i++) {
        prefopt_row row = {.struct_size = sizeof row};
        OK(prefopt_dataset_row(w.data, i, &row));
        double ref[] = {row.ref_logp[0] - 30, row.ref_logp[1]};
        row.ref_logp = ref;
        OK(prefopt_dataset_append(shifted, &row));
    }
    /* beta 0.1: each pair's argument grows by 3 */
    double loss = loss_of(w.policy, w.other, shifted);
    ck_assert(loss < 0.2 && scored > 0.6);
    prefopt_dataset_destroy(shifted);
    /* The column as the reference. */
    prefopt_reference *column;
    OK(prefopt_reference_from_dataset(&column, w.data));
    CLOSE(loss_of(w.policy, column, w.data), scored, 1e-6);
    prefopt_reference_destroy(column);
    tear_down(&w);
}
END_TEST

START_TEST(another_reference_is_an_error)
{
    small_world w = set_up();
    prefopt_trainer *trainer = NULL;
    OK(prefopt_reference_annotate(w.reference, w.data, NULL, NULL));
    FAILS(PREFOPT_ERR_STATE, "row 0: ref_logp has key",
          prefopt_trainer_create_dpo(&trainer, w.policy, w.other, w.data, NULL, NULL));
    /* So is an annotated row among others, a column that is another's, and one whose tokens were
     * changed. */
    prefopt_dataset *mixed = small_pairs(w.context, 3, 2), *edited;
    append_all(mixed, w.data);
    FAILS(PREFOPT_ERR_STATE, "row 2: ref_logp has key",
          prefopt_trainer_create_dpo(&trainer, w.policy, w.other, mixed, NULL, NULL));
    prefopt_dataset *theirs = small_pairs(w.context, 0, 6);
    prefopt_reference *column;
    OK(prefopt_reference_annotate(w.other, theirs, NULL, NULL));
    OK(prefopt_reference_from_dataset(&column, theirs));
    FAILS(PREFOPT_ERR_STATE, "row 0: ref_logp has key",
          prefopt_trainer_create_dpo(&trainer, w.policy, column, w.data, NULL, NULL));
    OK(prefopt_dataset_create(&edited, w.context));
    prefopt_row row = {.struct_size = sizeof row};
    OK(prefopt_dataset_row(w.data, 4, &row));
    int32_t completions[5];
    memcpy(completions, row.completions, sizeof completions);
    completions[0] ^= 1;
    row.completions = completions;
    OK(prefopt_dataset_append(edited, &row));
    FAILS(PREFOPT_ERR_STATE, "row 0: ref_logp has key",
          prefopt_trainer_create_dpo(&trainer, w.policy, w.reference, edited, NULL, NULL));
    ck_assert_ptr_null(trainer);
    /* Without a reference there is nothing to compare. */
    prefopt_dpo_options dpo;
    OK(prefopt_dpo_options_init(&dpo, sizeof dpo));
    dpo.variant = PREFOPT_DPO_SIMPO;
    OK(prefopt_trainer_create_dpo(&trainer, w.policy, NULL, edited, &dpo, NULL));
    prefopt_trainer_destroy(trainer);
    prefopt_reference_destroy(column);
    prefopt_dataset_destroy(mixed);
    prefopt_dataset_destroy(theirs);
    prefopt_dataset_destroy(edited);
    tear_down(&w);
}
END_TEST

START_TEST(partly_annotated)
{
    small_world w = set_up();
    /* Rows 0 and 1 new, 2 to 7 annotated, two of which have the sequences of the first. */
    prefopt_dataset *mixed = small_pairs(w.context, 3, 2), *plain = small_pairs(w.context, 3, 2);
    append_all(plain, w.data);
    OK(prefopt_reference_annotate(w.other, w.data, NULL, NULL));
    append_all(mixed, w.data);
    CLOSE(loss_of(w.policy, w.other, mixed), loss_of(w.policy, w.other, plain), 1e-6);
    prefopt_dataset_destroy(mixed);
    prefopt_dataset_destroy(plain);
    tear_down(&w);
}
END_TEST

START_TEST(through_a_file)
{
    small_world w = set_up();
    char folder[] = "prefopt-test-XXXXXX", path[64];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/rows.jsonl", folder);
    OK(prefopt_reference_annotate(w.other, w.data, NULL, NULL));
    int32_t status = prefopt_dataset_write_jsonl(w.data, path);
    if (status != PREFOPT_ERR_UNSUPPORTED) {
        prefopt_dataset *again = NULL;
        prefopt_columns a = {.struct_size = sizeof a}, b = {.struct_size = sizeof b};
        prefopt_trainer *trainer = NULL;
        OK(status);
        OK(prefopt_dataset_read_jsonl(&again, w.context, path));
        OK(prefopt_dataset_columns(w.data, &a));
        OK(prefopt_dataset_columns(again, &b));
        ck_assert_int_eq(a.n_sequences, b.n_sequences);
        ck_assert_mem_eq(a.ref_logp, b.ref_logp, (size_t)a.n_sequences * sizeof *a.ref_logp);
        ck_assert_mem_eq(a.ref_key, b.ref_key, (size_t)a.n_rows * sizeof *a.ref_key);
        ck_assert(loss_of(w.policy, w.other, again) == loss_of(w.policy, w.other, w.data));
        FAILS(PREFOPT_ERR_STATE, "row 0",
              prefopt_trainer_create_dpo(&trainer, w.policy, w.reference, again, NULL, NULL));
        prefopt_dataset_destroy(again);
    }
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0);
    tear_down(&w);
}
END_TEST

TEST_MAIN("reference_keys", stored_numbers_are_taken, another_reference_is_an_error,
          partly_annotated, through_a_file)

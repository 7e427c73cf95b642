/* What a reference is asked by several ranks, each its part: the numbers and keys of one process,
 * and a failure of one is one of all. */
#include "ranks_test.h"

/* The pairs' numbers and keys are those of a reference that is asked here. kind 1: rank 0 knows the
 * first rows by their keys. */
static void asks(void *payload, const prefopt_collective *c, setting *s, prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    (void)policy;
    int64_t rows[] = {0, 1, 2};
    prefopt_dataset *some, *data = s->pairs;
    if (j->kind == 1 && rank == 0) {
        OK(prefopt_dataset_select(&some, data, rows, 3));
        OK(prefopt_reference_annotate(s->reference, some, NULL, NULL));
        prefopt_dataset *both;
        OK(prefopt_dataset_create(&both, s->w.context));
        for (int64_t i = 0; i < prefopt_dataset_size(data); i++) {
            prefopt_row row = {.struct_size = sizeof row};
            OK(prefopt_dataset_row(i < 3 ? some : data, i, &row));
            OK(prefopt_dataset_append(both, &row));
        }
        prefopt_dataset_destroy(some);
        prefopt_dataset_destroy(s->pairs);
        data = s->pairs = both;
    }
    of_reference.sequences = 0;
    note(j, rank, prefopt_collective_annotate(c, s->reference, data, NULL, NULL));
    prefopt_columns columns = columns_of(data);
    uint64_t keys = 0;
    for (int64_t i = 0; i < columns.n_rows; i++) {
        ck_assert(columns.ref_key[i] != 0);
        keys = pf_stream(keys, columns.ref_key[i]);
    }
    prefopt_sequences in = sequences_of(data);
    double *ref = malloc((size_t)in.n * sizeof *ref);
    OK(prefopt_reference_logprobs(s->reference, &in, ref));
    of_reference.sequences -= in.n;
    ck_assert_mem_eq(columns.ref_logp, ref, (size_t)in.n * sizeof *ref);
    free(ref);
    j->value[rank][0] = (double)(keys >> 12);
}

START_TEST(annotations_are_shared)
{
    for (int32_t kind = 0; kind <= 1; kind++) {
        job one = {.work = asks, .rank = -1};
        rank_job(&one, NULL);
        for (int64_t size = 2; size <= 8; size += 3) {
            job several = {.work = asks, .rank = -1, .kind = kind};
            run_ranks(size, rank_job, &several, 0);
            all_have(&several, size, PREFOPT_OK, "");
            same_bits(&several, size);
            ck_assert_mem_eq(several.value[0], one.value[0], sizeof one.value[0]);
            int64_t all = 0, most = 0;
            for (int64_t r = 0; r < size; r++) {
                all += several.asked[r];
                most = several.asked[r] > most ? several.asked[r] : most;
            }
            ck_assert_int_le(most, one.asked[0] / size + 2);
            if (kind == 0)
                ck_assert_int_eq(all, one.asked[0]); /* each once */
            else
                ck_assert_int_lt(all, one.asked[0]);
        }
    }
}
END_TEST

/* A trainer's own, and its evaluation's. */
static void trains(void *payload, const prefopt_collective *c, setting *s, prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    of_reference.sequences = 0;
    OK(objectives[j->objective].make(&t, s, policy, &o));
    OK(prefopt_trainer_run(t, 1, NULL));
    prefopt_dataset *held_out = random_pairs(&s->w, 77, 3);
    if (objectives[j->objective].make == make_dpo)
        OK(prefopt_trainer_set_evaluation(t, held_out, s->reference, NULL));
    prefopt_dataset_destroy(held_out);
    prefopt_trainer_destroy(t);
    note(j, rank, PREFOPT_OK);
}

START_TEST(trainers_share_the_reference)
{
    static make_fn *const makes[] = {make_dpo, make_ranked_dpo, make_online, make_rounds,
                                     make_policy_gradient};
    for (size_t k = 0; k < sizeof makes / sizeof *makes; k++) {
        size_t i = 0;
        while (objectives[i].make != makes[k])
            i++;
        job one = {.work = trains, .objective = i, .rank = -1}, several = one;
        rank_job(&one, NULL);
        ck_assert_int_gt(one.asked[0], 3);
        run_ranks(3, rank_job, &several, 0);
        int64_t all = 0;
        for (int64_t r = 0; r < 3; r++) {
            all += several.asked[r];
            ck_assert_int_le(several.asked[r], one.asked[0] / 3 + 3);
        }
        ck_assert_int_eq(all, one.asked[0]);
    }
}
END_TEST

/* ---- failures */

enum { ASKED, OTHER_REFERENCE, OTHER_DATA, BAD_KEY, NO_REFERENCE, BAD_OPTION };

static void another(const job *j, const prefopt_collective *c, setting *s)
{
    if (!odd(j, c))
        return;
    if (j->kind == OTHER_REFERENCE || j->kind == BAD_KEY) {
        prefopt_reference *fresh;
        prefopt_policy *policy = tabular_policy(&s->w);
        randomise(policy, 99, 1);
        OK(prefopt_reference_freeze(&fresh, policy));
        prefopt_policy_destroy(policy);
        if (j->kind == BAD_KEY) {
            OK(prefopt_reference_annotate(fresh, s->pairs, NULL, NULL));
            prefopt_reference_destroy(fresh);
        } else {
            prefopt_reference_destroy(s->reference);
            s->reference = fresh;
            watch_reference(fresh);
        }
    }
    if (j->kind == OTHER_DATA)
        add_pair(&s->w, s->pairs, 0, 0, 1, 1, 1, 0);
    if (j->kind == ASKED) {
        of_reference.fail_at = 1;
        of_reference.status = (int32_t)j->at;
        of_reference.calls = 0;
    }
}

static void create_fails(void *payload, const prefopt_collective *c, setting *s,
                         prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    another(j, c, s);
    if (odd(j, c) && j->kind == BAD_OPTION)
        o.learning_rate = -1;
    if (odd(j, c) && j->kind == NO_REFERENCE) {
        prefopt_dpo_options dpo = dpo_of(PREFOPT_DPO_SIMPO);
        note(j, rank, prefopt_trainer_create_dpo(&t, policy, NULL, s->pairs, &dpo, &o));
    } else {
        note(j, rank, make_dpo(&t, s, policy, &o));
    }
    ck_assert_ptr_null(t);
}

static void annotate_fails(void *payload, const prefopt_collective *c, setting *s,
                           prefopt_policy *policy)
{
    job *j = payload;
    (void)policy;
    another(j, c, s);
    uint64_t key = columns_of(s->pairs).ref_key[0];
    note(j, rank_of(c), prefopt_collective_annotate(c, s->reference, s->pairs, NULL, NULL));
    if (j->status[rank_of(c)] < 0)
        ck_assert(columns_of(s->pairs).ref_key[0] == key);
}

START_TEST(one_fails_all_fail)
{
    static const struct {
        int32_t kind;
        int64_t at;
        int32_t status;
        const char *text;
    } cases[] = {
        {ASKED, PREFOPT_ERR_MEMORY, PREFOPT_ERR_MEMORY, "rank 1 of 3: reference: made to fail"},
        {ASKED, PREFOPT_STOPPED, PREFOPT_STOPPED, ""},
        {OTHER_REFERENCE, 0, PREFOPT_ERR_STATE, "rank 1 of 3: the reference has hash "},
        {OTHER_DATA, 0, PREFOPT_ERR_STATE, "rank 1 of 3: the number of rows is"},
        {BAD_KEY, 0, PREFOPT_ERR_STATE, "rank 1 of 3: row 0: ref_logp has key"},
        {NO_REFERENCE, 0, PREFOPT_ERR_STATE, "rank 1 of 3: reference is NULL, but given on rank 0"},
        {BAD_OPTION, 0, PREFOPT_ERR_ARGUMENT, "rank 1 of 3: learning_rate is -1"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int k = 0; k < 2; k++) {
            if (k == 1 && cases[i].kind >= NO_REFERENCE)
                continue;
            job j = {.work = k == 0 ? create_fails : annotate_fails,
                     .rank = 1,
                     .kind = cases[i].kind,
                     .at = cases[i].at};
            run_ranks(3, rank_job, &j, 0);
            all_have(&j, 3, cases[i].status, cases[i].text);
        }
}
END_TEST

/* The n-th allocation of rank 1 fails; kind: what is tried. */
static void without_memory(void *payload, const prefopt_collective *c, setting *s,
                           prefopt_policy *policy)
{
    job *j = payload;
    int64_t rank = rank_of(c);
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    if (j->kind > 0)
        OK(make_dpo(&t, s, policy, &o));
    bool fails = odd(j, c);
    int64_t live = fails ? j->allocator->live : 0;
    if (fails) {
        j->allocator->calls = 0;
        j->allocator->fail_at = j->at;
    }
    int32_t status = j->kind == 0 ? make_dpo(&t, s, policy, &o)
                     : j->kind == 1
                         ? prefopt_trainer_set_evaluation(t, s->margined, s->reference, NULL)
                         : prefopt_collective_annotate(c, s->reference, s->pairs, NULL, NULL);
    note(j, rank, status);
    if (fails) {
        j->allocator->fail_at = 0;
        if (status != PREFOPT_OK)
            ck_assert_int_eq(j->allocator->live, live);
    }
    if (status == PREFOPT_OK || j->kind > 0)
        OK(prefopt_trainer_run(t, 1, NULL));
    prefopt_trainer_destroy(t);
}

/* The first allocation of prefopt_collective_annotate is what the ranks meet with. */
START_TEST(no_memory_on_one_rank)
{
    int64_t first = _i == 2 ? 2 : 1, at;
    int32_t status = PREFOPT_ERR_MEMORY;
    for (at = first; status != PREFOPT_OK; at++) {
        counting_allocator allocator = {0};
        job j = {.work = without_memory, .rank = 1, .kind = _i, .at = at, .allocator = &allocator};
        run_ranks(2, rank_job, &j, 0);
        status = j.status[0];
        if (status != PREFOPT_OK)
            all_have(&j, 2, PREFOPT_ERR_MEMORY, "rank 1 of 2: ");
        else
            all_have(&j, 2, PREFOPT_OK, "");
        ck_assert_int_eq(allocator.live, 0);
    }
    ck_assert_int_gt(at - first, 5);
}
END_TEST

/* Whichever call of the collective fails while a trainer is made and its evaluation set. */
static void made(void *payload, const prefopt_collective *c, setting *s, prefopt_policy *policy)
{
    job *j = payload;
    prefopt_trainer *t = NULL;
    prefopt_train_options o = options_of(c);
    int32_t status = prefopt_collective_annotate(c, s->reference, s->ties, NULL, NULL);
    if (status == PREFOPT_OK)
        status = make_dpo(&t, s, policy, &o);
    if (status == PREFOPT_OK)
        status = prefopt_trainer_set_evaluation(t, s->margined, s->reference, NULL);
    if (status == PREFOPT_OK)
        status = prefopt_trainer_run(t, 0, NULL);
    note(j, rank_of(c), status);
    prefopt_trainer_destroy(t);
}

START_TEST(collective_fails)
{
    job whole = {.work = made, .rank = -1};
    int64_t calls = run_ranks(2, rank_job, &whole, 0);
    all_have(&whole, 2, PREFOPT_OK, "");
    ck_assert_int_gt(calls, 20);
    for (int64_t at = 1; at <= calls; at++) {
        job j = {.work = made, .rank = -1};
        ck_assert_int_eq(run_ranks(2, rank_job, &j, at), at);
        all_have(&j, 2, PREFOPT_ERR_CALLBACK, " returned 7");
    }
}
END_TEST

/* ---- a progress callback that stops */

static int32_t stop_first(void *payload, int64_t done, int64_t total)
{
    const job *j = payload;
    ck_assert_int_le(done, total);
    return j->kind;
}

/* Rank 1's callback stops at once; one call more does the rest. 1,500 pairs are several pieces. */
static void stops(void *payload, const prefopt_collective *c, setting *s, prefopt_policy *policy)
{
    job *j = payload, own = {.kind = odd(j, c)};
    int64_t rank = rank_of(c), done = 0;
    (void)policy;
    prefopt_dataset *data;
    prefopt_space space = {.struct_size = sizeof space, .eos = -1, .vocab = 4000, .horizon = 2};
    prefopt_reference *uniform;
    OK(prefopt_reference_create_uniform(&uniform, s->w.context, &space));
    OK(prefopt_dataset_create(&data, s->w.context));
    for (int32_t i = 0; i < 1500; i++) {
        int32_t prompt[] = {i}, chosen[] = {i, i + 1}, rejected[] = {i + 2, 7};
        OK(prefopt_dataset_append_pair(data, prompt, 1, chosen, 2, rejected, 2, 1, 1, 0));
    }
    watch_reference(uniform);
    note(j, rank, prefopt_collective_annotate(c, uniform, data, stop_first, &own));
    prefopt_columns columns = columns_of(data);
    for (int64_t i = 0; i < columns.n_rows; i++)
        done += columns.ref_key[i] != 0;
    j->value[rank][0] = (double)done;
    OK(prefopt_collective_annotate(c, uniform, data, stop_first, &(job){.kind = 0}));
    columns = columns_of(data);
    for (int64_t i = 0; i < columns.n_rows; i++)
        ck_assert(columns.ref_key[i] != 0);
    prefopt_dataset_destroy(data);
    prefopt_reference_destroy(uniform);
}

START_TEST(one_stops_all_stop)
{
    job j = {.work = stops, .rank = 1};
    run_ranks(2, rank_job, &j, 0);
    all_have(&j, 2, PREFOPT_STOPPED, "");
    same_bits(&j, 2);
    ck_assert_double_gt(j.value[0][0], 500); /* a piece of each rank, of three tokens a sequence */
    ck_assert_double_lt(j.value[0][0], 1500);
    /* Each once, but for a row of which half was done. */
    ck_assert_int_ge(j.asked[0] + j.asked[1], 3000);
    ck_assert_int_le(j.asked[0] + j.asked[1], 3002);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reference on ranks");
    TCase *tcase = tcase_create("reference on ranks");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, annotations_are_shared);
    tcase_add_test(tcase, trainers_share_the_reference);
    tcase_add_test(tcase, one_fails_all_fail);
    tcase_add_loop_test(tcase, no_memory_on_one_rank, 0, 3);
    tcase_add_test(tcase, collective_fails);
    tcase_add_test(tcase, one_stops_all_stop);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define _GNU_SOURCE
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "data/pf_jsonl_test.h"

#if PF_HAVE_JSON

/* A number of any finite bits, NaN and, where allowed, -inf among them. */
static double any_number(uint64_t index, bool infinite)
{
    uint64_t bits = pf_stream(pf_stream(11, index), 3);
    double value;
    memcpy(&value, &bits, sizeof value);
    int64_t choice = pf_uniform_int(12, 0, index, 8);
    if (choice == 0)
        return infinite ? -INFINITY : -0.0;
    if (choice == 1)
        return -log(pf_uniform(12, 1, index));
    if (choice == 2)
        return (double)pf_uniform_int(12, 2, index, 2000) - 1000;
    return isfinite(value) ? value : NAN;
}

static prefopt_dataset *any_dataset(int64_t n_rows)
{
    prefopt_dataset *data = NULL;
    OK(prefopt_dataset_create(&data, context));
    uint64_t draw = 0;
    for (int64_t i = 0; i < n_rows; i++) {
        int32_t tokens[64];
        int64_t offsets[8] = {0};
        double columns[4][8];
        prefopt_row row;
        OK(prefopt_row_init(&row, sizeof row));
        row.kind = (int32_t)pf_uniform_int(1, 0, draw++, 4);
        row.n_completions = row.kind == PREFOPT_ROW_PROMPT ? 0
                            : row.kind == PREFOPT_ROW_PAIR ? 2
                                                           : 2 + pf_uniform_int(1, 0, draw++, 4);
        if (row.kind == PREFOPT_ROW_COMPLETIONS && i % 2 == 0)
            row.n_completions = 1;
        for (int t = 0; t < 64; t++)
            tokens[t] = (int32_t)pf_uniform_int(1, 0, draw++, t % 2 ? INT32_MAX : 10);
        for (int64_t c = 0; c < row.n_completions; c++) {
            offsets[c + 1] = offsets[c] + pf_uniform_int(1, 0, draw++, 4);
            for (int k = 0; k < 4; k++)
                columns[k][c] = any_number(draw++, k != PREFOPT_COLUMN_SCORE);
        }
        row.prompt = tokens + 40;
        row.prompt_len = pf_uniform_int(1, 0, draw++, 5);
        row.completions = tokens;
        row.completion_offsets = offsets;
        row.weight = i % 3 == 0 ? 1 : pf_uniform(1, 0, draw++) * 1e-300;
        if (row.kind == PREFOPT_ROW_PAIR) {
            row.label = i % 3 == 0 ? 1 : pf_uniform(1, 0, draw++);
            row.margin = i % 5 == 0 ? -0.0 : pf_normal(1, 0, draw++);
        }
        row.logp = i % 2 ? columns[0] : NULL;
        row.sampler_logp = i % 3 ? columns[1] : NULL;
        row.score = i % 5 ? columns[2] : NULL;
        row.ref_logp = i % 7 ? columns[3] : NULL;
        row.extra = i % 4 ? NULL
                          : "{\"text\":\"\\u0000\\\"\\n\xe2\x82\xac\",\"x\":[0.1,1e300,-0.0,"
                            "9223372036854775807,null,{}]}";
        bool known = row.ref_logp != NULL && row.n_completions > 0;
        for (int64_t c = 0; known && c < row.n_completions; c++)
            known = !isnan(row.ref_logp[c]);
        if (known && i % 3 != 0)
            row.ref_key = pf_stream(7, draw++);
        OK(prefopt_dataset_append(data, &row));
    }
    return data;
}

START_TEST(files_that_cannot_be_had)
{
    set_up();
    prefopt_dataset *data = NULL;
    FAILS(PREFOPT_ERR_IO, "No such file", prefopt_dataset_read_jsonl(&data, context, target));
    FAILS(PREFOPT_ERR_IO, "Is a directory", prefopt_dataset_read_jsonl(&data, context, folder));
    FAILS(PREFOPT_ERR_IO, "No such file", prefopt_dataset_read_jsonl(&data, context, ""));
    FAILS(PREFOPT_ERR_ARGUMENT, "out is NULL", prefopt_dataset_read_jsonl(NULL, context, target));
    FAILS(PREFOPT_ERR_ARGUMENT, "context is NULL", prefopt_dataset_read_jsonl(&data, NULL, target));
    FAILS(PREFOPT_ERR_ARGUMENT, "path is NULL", prefopt_dataset_read_jsonl(&data, context, NULL));
    ck_assert_ptr_null(data);
    write_bytes(target, "{}\n", 3);
    if (geteuid() != 0) {
        ck_assert_int_eq(chmod(target, 0), 0);
        FAILS(PREFOPT_ERR_IO, "Permission denied",
              prefopt_dataset_read_jsonl(&data, context, target));
    }
    data = parse("{\"prompt\":[1,2,3]}\n");
    FAILS(PREFOPT_ERR_ARGUMENT, "dataset is NULL", prefopt_dataset_write_jsonl(NULL, target));
    FAILS(PREFOPT_ERR_ARGUMENT, "path is NULL", prefopt_dataset_write_jsonl(data, NULL));
    FAILS(PREFOPT_ERR_IO, "no regular file", prefopt_dataset_write_jsonl(data, "/dev/full"));
    FAILS(PREFOPT_ERR_IO, "no regular file", prefopt_dataset_write_jsonl(data, folder));
    FAILS(PREFOPT_ERR_IO, "No such file", prefopt_dataset_write_jsonl(data, "no-folder/file"));
    prefopt_dataset_destroy(data);
    tear_down();
}
END_TEST

START_TEST(a_file_that_does_not_fit)
{
    set_up();
    prefopt_dataset *data = parse("{\"prompt\":[1,2,3]}\n"), *many = NULL;
    static int64_t rows[10000];
    OK(prefopt_dataset_select(&many, data, rows, 10000));
    OK(prefopt_dataset_write_jsonl(data, target));
    struct rlimit before, limit;
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    limit = before;
    limit.rlim_cur = 100000;
    void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    FAILS(PREFOPT_ERR_IO, "File too large", prefopt_dataset_write_jsonl(many, target));
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    signal(SIGXFSZ, handler);
    prefopt_dataset *old = NULL;
    OK(prefopt_dataset_read_jsonl(&old, context, target));
    check_same(data, old);
    prefopt_dataset_destroy(old);
    prefopt_dataset_destroy(many);
    prefopt_dataset_destroy(data);
    tear_down(); /* sees that nothing was left beside it */
}
END_TEST

START_TEST(round_trip_bit_for_bit)
{
    set_up();
    prefopt_dataset *data = any_dataset(1500), *again = NULL;
    OK(prefopt_dataset_write_jsonl(data, target));
    OK(prefopt_dataset_read_jsonl(&again, context, target));
    check_same(data, again);
    size_t n, m;
    char *first = read_text(target, &n);
    ck_assert_uint_gt(n, 3 << 16); /* several pieces of the reader and the writer */
    ck_assert_ptr_null(strcasestr(first, "nan"));
    OK(prefopt_dataset_write_jsonl(again, target));
    char *second = read_text(target, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(first, second, n);
    free(first);
    free(second);
    prefopt_dataset_destroy(again);
    prefopt_dataset_destroy(data);
    tear_down();
}
END_TEST

START_TEST(long_lines)
{
    set_up();
    enum { N = 300000 };
    prefopt_dataset *data = parse("{}\n"), *again = NULL;
    int32_t *tokens = calloc(N, sizeof *tokens);
    for (int32_t i = 0; i < N; i++)
        tokens[i] = i;
    OK(prefopt_dataset_append_pair(data, tokens, N, tokens, 1, tokens, 2, 1, 1, 0));
    OK(prefopt_dataset_append_pair(data, tokens, 1, tokens, N / 2, tokens, 2, 1, 1, 0));
    OK(prefopt_dataset_write_jsonl(data, target));
    OK(prefopt_dataset_read_jsonl(&again, context, target));
    check_same(data, again);
    prefopt_dataset_destroy(again);
    prefopt_dataset_destroy(data);
    free(tokens);
    tear_down();
}
END_TEST

START_TEST(without_memory)
{
    set_up();
    counting_allocator a = {0};
    prefopt_context *counting = counting_context(&a);
    prefopt_dataset *data = any_dataset(40), *again = NULL;
    OK(prefopt_dataset_write_jsonl(data, target));
    int64_t live = a.live, failures = 0;
    for (a.calls = 0, a.fail_at = 1;; a.calls = 0, a.fail_at++) {
        int32_t status = prefopt_dataset_read_jsonl(&again, counting, target);
        if (status == PREFOPT_OK)
            break;
        failures++;
        ck_assert_msg(status == PREFOPT_ERR_MEMORY, "%s", prefopt_last_error());
        ck_assert_int_eq(a.live, live);
        ck_assert_ptr_null(again);
    }
    ck_assert_int_gt(failures, 30);
    check_same(data, again);
    live = a.live;
    failures = 0;
    for (a.calls = 0, a.fail_at = 1;; a.calls = 0, a.fail_at++) {
        int32_t status = prefopt_dataset_write_jsonl(again, target);
        if (status == PREFOPT_OK)
            break;
        failures++;
        ck_assert_int_eq(status, PREFOPT_ERR_MEMORY);
        ck_assert_int_eq(a.live, live);
    }
    ck_assert_int_eq(failures, 3);
    prefopt_dataset_destroy(again);
    prefopt_context_destroy(counting);
    ck_assert_int_eq(a.live, 0);
    prefopt_dataset_destroy(data);
    tear_down();
}
END_TEST

/* Texts that are almost right: bytes changed, cut out, doubled and put elsewhere. Each is read, or
 * refused as FORMAT with its place; what is read can be written and read again. */
START_TEST(mutations)
{
    set_up();
    prefopt_dataset *data = any_dataset(6), *again;
    OK(prefopt_dataset_write_jsonl(data, target));
    prefopt_dataset_destroy(data);
    size_t n;
    char *text = read_text(target, &n), *changed = malloc(4 * n);
    static const char alphabet[] = "{}[]\",:0123456789-+.eE\\ \n\r\tuntflsa\x01\x80\xff";
    int64_t good = 0, bad = 0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        size_t length = n;
        memcpy(changed, text, n);
        int64_t changes = 1 + pf_uniform_int(seed, 0, 0, 3);
        for (uint64_t c = 1; c <= (uint64_t)changes; c++) {
            size_t at = (size_t)pf_uniform_int(seed, 1, c, (int64_t)length);
            size_t span = (size_t)pf_uniform_int(seed, 2, c, 20);
            span = span < length - at ? span : length - at;
            switch (pf_uniform_int(seed, 3, c, 4)) {
            case 0:
                changed[at] = alphabet[pf_uniform_int(seed, 4, c, sizeof alphabet)];
                break;
            case 1: /* cut out */
                memmove(changed + at, changed + at + span, length - at - span);
                length -= span;
                break;
            case 2: /* doubled */
                memmove(changed + at + span, changed + at, length - at);
                length += span;
                break;
            default: /* from elsewhere */
                memmove(changed + at,
                        changed + pf_uniform_int(seed, 5, c, (int64_t)(length - span + 1)), span);
            }
        }
        again = NULL;
        int32_t status = pf_jsonl_parse(context, "memory", changed, (int64_t)length, &again);
        if (status != PREFOPT_OK) {
            bad++;
            ck_assert_msg(status == PREFOPT_ERR_FORMAT, "seed %d: %s", (int)seed,
                          prefopt_last_error());
            ck_assert(strncmp(prefopt_last_error(), "memory:", 7) == 0);
            ck_assert_ptr_null(again);
            continue;
        }
        if (good++ % 16 == 0) {
            prefopt_dataset *third = NULL;
            OK(prefopt_dataset_write_jsonl(again, target));
            OK(prefopt_dataset_read_jsonl(&third, context, target));
            check_same(again, third);
            prefopt_dataset_destroy(third);
        }
        prefopt_dataset_destroy(again);
    }
    ck_assert(good > 100 && bad > 100); /* both ways are taken */
    free(changed);
    free(text);
    tear_down();
}
END_TEST

TEST_MAIN("jsonl_files", files_that_cannot_be_had, a_file_that_does_not_fit, round_trip_bit_for_bit,
          long_lines, without_memory, mutations)

#else

int main(void) { return 0; }

#endif

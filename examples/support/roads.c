#include "roads.h"

#include <math.h>
#include <sys/stat.h>

#include "cli.h"
#include "plot.h"

void roads_allocate(roads *r)
{
    int64_t n = r->t->n_items;
    r->strength = doubles(n);
    r->std_error = doubles(n);
    r->log_ref = doubles(n);
    r->log_rlhf = doubles(n);
    r->log_dpo = doubles(n);
}

void roads_free(roads *r)
{
    free(r->strength);
    free(r->std_error);
    free(r->log_ref);
    free(r->log_rlhf);
    free(r->log_dpo);
    prefopt_dataset_destroy(r->uncovered);
}

prefopt_dataset *table_dataset(prefopt_context *context, const table *t)
{
    prefopt_dataset *data;
    CALL(prefopt_dataset_create(&data, context));
    int64_t *one_each = malloc((size_t)(t->n_items + 1) * sizeof *one_each);
    for (int64_t i = 0; i <= t->n_items && one_each != NULL; i++)
        one_each[i] = i;
    for (int64_t i = 0; i < t->n && !t->is_ranking; i++)
        CALL(prefopt_dataset_append_pair(data, NULL, 0, &t->first[i], 1, &t->second[i], 1,
                                         t->weight[i], t->label[i], 0));
    for (int64_t i = 0; i < t->n && t->is_ranking; i++) {
        prefopt_row row;
        CALL(prefopt_row_init(&row, sizeof row));
        row.kind = PREFOPT_ROW_RANKING;
        row.n_completions = t->offsets[i + 1] - t->offsets[i];
        row.completions = t->items + t->offsets[i];
        row.completion_offsets = one_each;
        row.weight = t->weight[i];
        if (row.n_completions >= 2)
            CALL(prefopt_dataset_append(data, &row));
    }
    free(one_each);
    return data;
}

int64_t item_named(const table *t, const char *name)
{
    if (name == NULL)
        return -1;
    char *shown = table_utf8(name);
    for (int64_t i = 0; i < t->n_items; i++)
        if (strcmp(t->names[i], shown) == 0) {
            free(shown);
            return i;
        }
    free(shown);
    fprintf(stderr, "--reference is \"%s\", expected one of the items: %s, %s, ...\n", name,
            t->names[0], t->names[1]);
    exit(2);
}

int32_t tie_model_named(const char *name)
{
    if (strcmp(name, "none") == 0)
        return PREFOPT_TIE_NONE;
    if (strcmp(name, "davidson") == 0)
        return PREFOPT_TIE_DAVIDSON;
    if (strcmp(name, "rao-kupper") == 0)
        return PREFOPT_TIE_RAO_KUPPER;
    fprintf(stderr, "--ties is \"%s\", expected none, davidson or rao-kupper\n", name);
    exit(2);
}

/* Items by falling strength; equal ones in the order of the table. */
static int64_t *by_strength(const roads *r)
{
    int64_t n = r->t->n_items, *order = malloc((size_t)n * sizeof *order);
    if (order == NULL)
        exit(1);
    for (int64_t i = 0; i < n; i++) {
        int64_t j = i;
        for (; j > 0 && r->strength[order[j - 1]] < r->strength[i]; j--)
            order[j] = order[j - 1];
        order[j] = i;
    }
    return order;
}

static double total_variation(const roads *r)
{
    double sum = 0;
    for (int64_t i = 0; i < r->t->n_items; i++)
        sum += fabs(exp(r->log_rlhf[i]) - exp(r->log_dpo[i]));
    return sum / 2;
}

static double kl(const roads *r, int32_t direction, const double *p)
{
    double value;
    CALL(prefopt_kl_exact(direction, r->t->n_items, p, r->log_ref, &value, NULL));
    return value;
}

static void print_coverage(const roads *r)
{
    const prefopt_coverage *c = &r->coverage;
    printf("coverage: policy / data at most %.3g, chi-square %.3g", c->max_ratio, c->chi_square);
    if (c->n_uncovered == 0) {
        printf("; every item was compared\n");
        return;
    }
    prefopt_row row = {.struct_size = sizeof row};
    CALL(prefopt_dataset_row(r->uncovered, 0, &row));
    printf(
        "\nWARNING: %lld item(s) were never compared, so no comparison holds the DPO policy's %.3g "
        "on them:\n   ",
        (long long)c->n_uncovered, c->uncovered_policy_mass);
    for (int64_t i = 0; i < row.n_completions && i < 8; i++)
        printf(" %s%s", r->t->names[row.completions[i]], i + 1 < row.n_completions ? "," : "");
    printf("%s\n", row.n_completions > 8 ? " ..." : "");
}

static void print_fragility(const roads *r)
{
    const prefopt_fragility *f = &r->fragility;
    if (f->found)
        printf("fragility: %s would be first without %g of the comparisons (%.2g %%)\n",
               r->t->names[f->rival], f->n_removed, 100 * f->share);
    else
        printf(
            "fragility: no removal of up to 20 %% of the comparisons was found that changes who is "
            "first\n");
}

void roads_print(const roads *r)
{
    int64_t n = r->t->n_items, *order = by_strength(r);
    int width = 4, ties = r->summary.tie_model != PREFOPT_TIE_NONE;
    for (int64_t i = 0; i < n; i++)
        width = (int)strlen(r->t->names[i]) > width ? (int)strlen(r->t->names[i]) : width;
    printf("%4s  %-*s  %9s  %9s  %11s  %11s\n", "rank", width, "item", "strength", "std error",
           "RLHF policy", "DPO policy");
    for (int64_t k = 0; k < n; k++) {
        int64_t i = order[k];
        printf("%4lld  %-*s  %9.4f  %9.4f  %11.6f  %11.6f\n", (long long)k + 1, width,
               r->t->names[i], r->strength[i], r->std_error[i], exp(r->log_rlhf[i]),
               exp(r->log_dpo[i]));
    }
    printf("\nlog-likelihood %.4f", r->summary.log_likelihood);
    if (ties)
        printf(", log tie parameter %.4f (std error %.4f)", r->summary.log_tie,
               r->summary.log_tie_std_error);
    printf("\nbeta %g, reference policy uniform over %lld items\n", r->beta, (long long)n);
    printf("total variation between the two policies: %.2e\n", total_variation(r));
    printf("%-12s  KL(policy || reference) %8.4f   KL(reference || policy) %8.4f\n", "RLHF",
           kl(r, PREFOPT_KL_REVERSE, r->log_rlhf), kl(r, PREFOPT_KL_FORWARD, r->log_rlhf));
    printf("%-12s  KL(policy || reference) %8.4f   KL(reference || policy) %8.4f\n", "DPO",
           kl(r, PREFOPT_KL_REVERSE, r->log_dpo), kl(r, PREFOPT_KL_FORWARD, r->log_dpo));
    print_coverage(r);
    if (!r->t->is_ranking)
        print_fragility(r);
    free(order);
}

static void json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20)
            fprintf(out, "\\u%04x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void write_json(const roads *r, FILE *out)
{
    int64_t *order = by_strength(r);
    fprintf(out, "{\"items\":[");
    for (int64_t k = 0; k < r->t->n_items; k++) {
        int64_t i = order[k];
        fprintf(out, "%s\n{\"name\":", k == 0 ? "" : ",");
        json_string(out, r->t->names[i]);
        fprintf(
            out,
            ",\"strength\":%.17g,\"std_error\":%.17g,\"policy_rlhf\":%.17g,\"policy_dpo\":%.17g}",
            r->strength[i], r->std_error[i], exp(r->log_rlhf[i]), exp(r->log_dpo[i]));
    }
    fprintf(out, "],\n\"tie\":");
    if (r->summary.tie_model == PREFOPT_TIE_NONE)
        fprintf(out, "null");
    else
        fprintf(out, "%.17g", r->summary.log_tie);
    fprintf(out, ",\n\"log_likelihood\":%.17g,\n\"total_variation\":%.17g,\n\"beta\":%.17g}\n",
            r->summary.log_likelihood, total_variation(r), r->beta);
    free(order);
}

/* A file appears whole or not at all: written beside, then renamed. What exists and is no regular
 * file (/dev/stdout, a pipe, a link) must not be replaced by one, and is written to as it is. */
void roads_write_json(const roads *r, const char *path)
{
    struct stat info;
    int beside = lstat(path, &info) != 0 || S_ISREG(info.st_mode);
    size_t n = strlen(path);
    char *temporary = malloc(n + 5);
    if (temporary == NULL)
        exit(1);
    snprintf(temporary, n + 5, "%s%s", path, beside ? ".tmp" : "");
    FILE *out = fopen(temporary, "w");
    if (out == NULL) {
        fprintf(stderr, "%s: %s\n", temporary, strerror(errno));
        exit(1);
    }
    write_json(r, out);
    int failed = fflush(out) != 0 || ferror(out);
    failed |= fclose(out) != 0;
    if (failed || (beside && rename(temporary, path) != 0)) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        if (beside)
            remove(temporary);
        exit(1);
    }
    free(temporary);
}

void roads_draw(const roads *r, const char *title, const char *path)
{
    enum { MOST = 24 };
    int64_t *order = by_strength(r), n = r->t->n_items < MOST ? r->t->n_items : MOST;
    char *names[MOST];
    double strength[MOST], error[MOST], rlhf[MOST], dpo[MOST];
    for (int64_t k = 0; k < n; k++) {
        names[k] = r->t->names[order[k]];
        strength[k] = r->strength[order[k]];
        error[k] = 1.96 * r->std_error[order[k]];
        rlhf[k] = exp(r->log_rlhf[order[k]]);
        dpo[k] = exp(r->log_dpo[order[k]]);
    }
    plot *p = plot_open(path, 2, title);
    char x_range[64], y_range[64];
    double highest = 0;
    for (int64_t k = 0; k < n; k++)
        highest = fmax(highest, fmax(rlhf[k], dpo[k]));
    snprintf(x_range, sizeof x_range, "[-0.7:%g]", (double)n - 0.3);
    snprintf(y_range, sizeof y_range, "[0:%g]", 1.25 * highest);
    plot_panel(p, "Strengths with 95 % intervals", "", "strength (log-odds)", x_range, NULL);
    plot_set(p, "set key off");
    plot_points(p, "", n, names, strength, error);
    plot_panel(p, "The policy at the end of each road", "", "probability", NULL, y_range);
    plot_set(p, "set key top right");
    plot_bars(p, "RLHF: reward model, then soft-optimal policy", n, names, rlhf);
    plot_bars(p, "DPO: policy from the comparisons", n, names, dpo);
    plot_close(p);
    free(order);
}

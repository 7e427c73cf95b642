/* A program from outside, in the common part of C and C++: a DPO loss on the caller's own numbers.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <prefopt/prefopt.h>

int main(void)
{
    double chosen[] = {-1.0}, rejected[] = {-2.0}, ref[] = {-1.5};
    prefopt_dpo_options options;
    prefopt_pair_scores in;
    prefopt_pair_loss out;
    memset(&in, 0, sizeof in);
    memset(&out, 0, sizeof out);
    in.struct_size = sizeof in;
    out.struct_size = sizeof out;
    in.n = 1;
    in.chosen = chosen;
    in.rejected = rejected;
    in.ref_chosen = in.ref_rejected = ref;
    if (prefopt_dpo_options_init(&options, sizeof options) != PREFOPT_OK ||
        prefopt_loss_dpo(&options, &in, &out) != PREFOPT_OK) {
        fprintf(stderr, "%s\n", prefopt_last_error());
        return 1;
    }
    return fabs(out.mean - log1p(exp(-0.1))) < 1e-15 ? 0 : 1;
}

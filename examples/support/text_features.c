/* Counting words, sentences, marks and habits in one pass over the words and one over the bytes. */
#include "text_features.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const text_feature_names[TEXT_FEATURES] = {
    "log bytes",
    "square root of bytes",
    "bytes",
    "log words",
    "log distinct words",
    "log sentences",
    "log words a sentence",
    "distinct words / words",
    "letters a word",
    "longest word",
    "words of 7 letters or more",
    "words of 10 letters or more",
    "common small words",
    "connectives",
    "log connectives",
    "modal verbs",
    "negations",
    "log I, me, my",
    "log \"i\" in lower case",
    "log you, your",
    "log chat spelling",
    "words in capitals",
    "capital letters",
    "starts in lower case",
    "sentences with a capital",
    "ends with a mark",
    "marks . , ; :",
    "commas a word",
    "log exclamation marks",
    "log question marks",
    "log mark without space",
    "log dots in a row",
    "log letters thrice",
    "log quotation marks, brackets",
    "has a link",
    "log digits",
};

/* ---- words by list: each with a space on both sides */

static const char connectives[] =
    " because therefore thus however although though moreover furthermore since hence also first "
    "second third finally example instance if then but while whereas despite consequently besides "
    "nevertheless otherwise ";
static const char small_words[] =
    " the of and to a in is that it for be as are was with on by this not or have from at they "
    "which you we he his i an but will their has been can if there all more when who so what no "
    "would my our your its them one do does should these those than ";
static const char modals[] = " should would could must can may might shall ";
static const char negations[] =
    " not no never none nothing don't dont can't cant isn't isnt won't wont doesn't doesnt ";
static const char me[] = " i me my mine i'm im i've ive ";
static const char you[] = " you your yours u ur you're ";
static const char chat[] =
    " u ur r n lol plz pls cuz coz wat dont cant wont isnt doesnt didnt im ive thats whats "
    "gonna wanna alot ";

enum { LONGEST = 30 };

static int is_in(const char *list, const char *word)
{
    char with_spaces[LONGEST + 3];
    snprintf(with_spaces, sizeof with_spaces, " %s ", word);
    return strstr(list, with_spaces) != NULL;
}

typedef struct {
    double words, letters, longest, seven, ten, capitals;
    double connectives, small, modals, negations, me, lower_i, you, chat;
    double distinct;
} word_counts;

static int compare(const void *a, const void *b) { return strcmp(a, b); }

static int in_word(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '\''; }

static void count_word(word_counts *w, const char *begin, int64_t len, char lower[LONGEST + 1])
{
    int64_t kept = len < LONGEST ? len : LONGEST, upper = 0;
    for (int64_t i = 0; i < len; i++)
        upper += isupper((unsigned char)begin[i]) != 0;
    for (int64_t i = 0; i < kept; i++)
        lower[i] = (char)tolower((unsigned char)begin[i]);
    lower[kept] = '\0';
    w->words++;
    w->letters += (double)len;
    w->longest = fmax(w->longest, (double)kept);
    w->seven += len >= 7;
    w->ten += len >= 10;
    w->capitals += len > 1 && upper == len;
    w->connectives += is_in(connectives, lower);
    w->small += is_in(small_words, lower);
    w->modals += is_in(modals, lower);
    w->negations += is_in(negations, lower);
    w->me += is_in(me, lower);
    w->lower_i += len == 1 && begin[0] == 'i';
    w->you += is_in(you, lower);
    w->chat += is_in(chat, lower);
}

static word_counts count_words(const char *text, int64_t n)
{
    word_counts w = {0};
    char(*lower)[LONGEST + 1] = malloc((size_t)(n / 2 + 1) * sizeof *lower);
    if (lower == NULL) {
        fprintf(stderr, "no memory for the words of a text of %lld bytes\n", (long long)n);
        exit(1);
    }
    int64_t count = 0;
    for (int64_t i = 0; i < n;) {
        int64_t begin = i;
        while (i < n && in_word(text[i]))
            i++;
        if (i > begin)
            count_word(&w, text + begin, i - begin, lower[count++]);
        else
            i++;
    }
    qsort(lower, (size_t)count, sizeof *lower, compare);
    for (int64_t k = 0; k < count; k++)
        w.distinct += k == 0 || strcmp(lower[k - 1], lower[k]) != 0;
    free(lower);
    return w;
}

/* ---- marks */

typedef struct {
    double sentences, with_capital, marks, commas, exclamations, questions, no_space, dots, thrice;
    double quotes, digits, upper;
} mark_counts;

static int ends_sentence(char c) { return c == '.' || c == '!' || c == '?'; }

static mark_counts count_marks(const char *text, int64_t n)
{
    mark_counts m = {0};
    int fresh = 1; /* a sentence begins with the next byte that is no space */
    for (int64_t i = 0; i < n; i++) {
        char c = text[i], next = i + 1 < n ? text[i + 1] : ' ';
        if (fresh && !isspace((unsigned char)c) && !ends_sentence(c)) {
            m.sentences++;
            m.with_capital += isupper((unsigned char)c) != 0;
            fresh = 0;
        }
        fresh |= ends_sentence(c);
        m.marks += c == '.' || c == ',' || c == ';' || c == ':';
        m.commas += c == ',';
        m.exclamations += c == '!';
        m.questions += c == '?';
        m.no_space += (ends_sentence(c) || c == ',' || c == ';') && isalpha((unsigned char)next);
        m.dots += c == '.' && next == '.';
        int letter = isalpha((unsigned char)c) != 0;
        m.thrice += i >= 2 && letter && text[i - 1] == c && text[i - 2] == c;
        m.quotes += c == '"' || c == '(';
        m.digits += isdigit((unsigned char)c) != 0;
        m.upper += isupper((unsigned char)c) != 0;
    }
    return m;
}

static int contains(const char *text, int64_t n, const char *what)
{
    return memmem(text, (size_t)n, what, strlen(what)) != NULL;
}

void text_features(const char *text, int64_t n, double out[TEXT_FEATURES])
{
    while (n > 0 && isspace((unsigned char)text[0])) {
        text++;
        n--;
    }
    while (n > 0 && isspace((unsigned char)text[n - 1]))
        n--;
    word_counts w = count_words(text, n);
    mark_counts m = count_marks(text, n);
    double bytes = fmax(1, (double)n), words = fmax(1, w.words), sentences = fmax(1, m.sentences);
    const double value[TEXT_FEATURES] = {
        log(bytes),
        sqrt(bytes),
        bytes,
        log(words),
        log1p(w.distinct),
        log(sentences),
        log(words / sentences),
        w.distinct / words,
        w.letters / words,
        w.longest,
        w.seven / words,
        w.ten / words,
        w.small / words,
        w.connectives / words,
        log1p(w.connectives),
        w.modals / words,
        w.negations / words,
        log1p(w.me),
        log1p(w.lower_i),
        log1p(w.you),
        log1p(w.chat),
        w.capitals / words,
        m.upper / bytes,
        n > 0 && islower((unsigned char)text[0]),
        m.with_capital / sentences,
        n > 0 && strchr(".!?\"", text[n - 1]) != NULL,
        m.marks / bytes,
        m.commas / words,
        log1p(m.exclamations),
        log1p(m.questions),
        log1p(m.no_space),
        log1p(m.dots),
        log1p(m.thrice),
        log1p(m.quotes),
        contains(text, n, "http") || contains(text, n, "www."),
        log1p(m.digits),
    };
    memcpy(out, value, sizeof value);
}

/* Bytes as characters, UTF-8, white space. */
#include "data/pf_tokenizer.h"

/* GPT-2's alphabet: the bytes whose Latin-1 character is printable and no space (! to ~, ¡ to ¬,
 * ® to ÿ) stand for themselves; the 68 others, in order, are the characters from U+0100 on. */
static bool stands_for_itself(int32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
}

/* The others lie in 0 .. 0x20, 0x7f .. 0xa0 and 0xad. */
int32_t pf_byte_level_byte(int32_t character)
{
    if (character >= 0 && character < 0x100)
        return stands_for_itself(character) ? character : -1;
    if (character >= 0x100 && character <= 0x120)
        return character - 0x100;
    if (character >= 0x121 && character <= 0x142)
        return character - 0x121 + 0x7f;
    return character == 0x143 ? 0xad : -1;
}

int64_t pf_byte_level_decode(const char *text, int64_t n, char *out)
{
    int64_t used = 0;
    for (int64_t at = 0; at < n;) {
        int32_t byte = pf_byte_level_byte(pf_utf8_at(text, at, &at));
        if (byte < 0)
            return -1;
        out[used++] = (char)byte;
    }
    return used;
}

/* Length of the sequence that starts at s, of which `left` bytes are there; 0 where it is invalid.
 * The second byte's range excludes overlong forms, surrogates and what is above U+10FFFF. */
static int64_t sequence_length(const unsigned char *s, int64_t left)
{
    if (s[0] < 0x80)
        return 1;
    int64_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || left < length)
        return 0;
    unsigned char low = s[0] == 0xe0 ? 0xa0 : s[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = s[0] == 0xed ? 0x9f : s[0] == 0xf4 ? 0x8f : 0xbf;
    if (s[1] < low || s[1] > high)
        return 0;
    for (int64_t i = 2; i < length; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

int64_t pf_utf8_valid(const char *text, int64_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    int64_t at = 0;
    while (at < n) {
        uint64_t eight;
        if (n - at >= 8) { /* ASCII, eight at a time */
            memcpy(&eight, s + at, 8);
            if ((eight & UINT64_C(0x8080808080808080)) == 0) {
                at += 8;
                continue;
            }
        }
        int64_t length = sequence_length(s + at, n - at);
        if (length == 0)
            return at;
        at += length;
    }
    return n;
}

int32_t pf_utf8_at(const char *text, int64_t at, int64_t *next)
{
    const unsigned char *s = (const unsigned char *)text + at;
    if (s[0] < 0x80) {
        *next = at + 1;
        return s[0];
    }
    if (s[0] < 0xe0) {
        *next = at + 2;
        return (s[0] & 0x1f) << 6 | (s[1] & 0x3f);
    }
    if (s[0] < 0xf0) {
        *next = at + 3;
        return (s[0] & 0x0f) << 12 | (s[1] & 0x3f) << 6 | (s[2] & 0x3f);
    }
    *next = at + 4;
    return (s[0] & 0x07) << 18 | (s[1] & 0x3f) << 12 | (s[2] & 0x3f) << 6 | (s[3] & 0x3f);
}

bool pf_is_white_space(int32_t c)
{
    return (c >= 0x09 && c <= 0x0d) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

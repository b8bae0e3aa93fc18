/* The compiled twins of functions in Python that carry the decorator ``compiled`` of speedups.py.

   Each function here returns exactly what its twin returns for the same arguments; the docstring of the twin says what
   that is. tests/codecs/test_speedups.py compares them. Only the limited API of Python is used, so one build serves
   Python 3.11 and all later versions. There is no state, and nothing is kept after a call.

   The build defines SOURCE_DIGEST, the SHA-256 digest of this file, for speedups.py. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* A bytes object that somebody else holds for as long as this is used. */
typedef struct {
    const unsigned char *data;
    Py_ssize_t size;
} Span;

/* Returns 0 with an exception set if the object is not of type bytes. */
static int as_span(PyObject *object, Span *span)
{
    char *data;

    if (PyBytes_AsStringAndSize(object, &data, &span->size) < 0)
        return 0;
    span->data = (const unsigned char *)data;
    return 1;
}

static int has_arguments(Py_ssize_t given, Py_ssize_t expected)
{
    if (given == expected)
        return 1;
    PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, given);
    return 0;
}

/* scan_frames, of codecs/websocket.py */

enum { FINAL_TEXT = 0x81, MASK_BIT = 0x80, SIZE_IN_16_BITS = 126, SIZE_IN_64_BITS = 127 };

/* XOR with a mask of four bytes (RFC 6455 section 5.3). Returns true if the result is ASCII. The copies of eight bytes
   are single instructions; a pointer to a word would need aligned data. */
static int unmask(unsigned char *target, const unsigned char *source, Py_ssize_t size, const unsigned char *mask)
{
    uint64_t masks, word, seen = 0;
    Py_ssize_t i = 0;

    memcpy(&masks, mask, 4);
    memcpy((char *)&masks + 4, mask, 4);
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, source + i, 8);
        word ^= masks;
        seen |= word;
        memcpy(target + i, &word, 8);
    }
    for (; i < size; i++) {
        target[i] = source[i] ^ mask[i & 3];
        seen |= target[i];
    }
    return (seen & UINT64_C(0x8080808080808080)) == 0;
}

/* True for valid UTF-8 (RFC 3629 section 4: the second byte has a narrower range after some first bytes). */
static int is_utf8(const unsigned char *text, Py_ssize_t size)
{
    Py_ssize_t i = 0;

    while (i < size) {
        unsigned char first = text[i], low = 0x80, high = 0xBF;
        int more, k;

        if (first < 0x80) {
            i++;
            continue;
        }
        if (first < 0xC2 || first > 0xF4)
            return 0;
        if (first < 0xE0) {
            if (size - i < 2 || (text[i + 1] & 0xC0) != 0x80)
                return 0;
            i += 2;
            continue;
        }
        more = first < 0xF0 ? 2 : 3;
        if (first == 0xE0)
            low = 0xA0;
        else if (first == 0xED)
            high = 0x9F;
        else if (first == 0xF0)
            low = 0x90;
        else if (first == 0xF4)
            high = 0x8F;
        if (size - i <= more || text[i + 1] < low || text[i + 1] > high)
            return 0;
        for (k = 2; k <= more; k++)
            if ((text[i + k] & 0xC0) != 0x80)
                return 0;
        i += more + 1;
    }
    return 1;
}

/* Find the payload of the frame at the start of the data. Returns false unless it is a complete plain text frame. */
static int find_payload(Span data, Py_ssize_t max_bytes, Span *payload)
{
    Py_ssize_t size, body = 6;

    if (data.size < 6 || data.data[0] != FINAL_TEXT || !(data.data[1] & MASK_BIT))
        return 0;
    size = data.data[1] & ~MASK_BIT;
    if (size == SIZE_IN_64_BITS)
        return 0;
    if (size == SIZE_IN_16_BITS) {
        size = data.data[2] << 8 | data.data[3];
        if (size < SIZE_IN_16_BITS) /* not the shortest form */
            return 0;
        body = 8;
    }
    if (size > max_bytes || size > data.size - body)
        return 0;
    payload->data = data.data + body;
    payload->size = size;
    return 1;
}

static PyObject *scan_frames(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Span data, payload;
    Py_ssize_t position, max_bytes;
    PyObject *messages, *message, *result = NULL;

    if (!has_arguments(count, 3) || !as_span(arguments[0], &data))
        return NULL;
    position = PyLong_AsSsize_t(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    max_bytes = PyLong_AsSsize_t(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    if (position < 0 || position > data.size)
        return PyErr_Format(PyExc_ValueError, "the position is outside of the data");
    messages = PyList_New(0);
    if (messages == NULL)
        return NULL;
    data.data += position;
    data.size -= position;
    while (find_payload(data, max_bytes, &payload)) {
        unsigned char *text;
        int is_text, failed;

        message = PyBytes_FromStringAndSize(NULL, payload.size);
        if (message == NULL)
            goto done;
        text = (unsigned char *)PyBytes_AsString(message);
        is_text = unmask(text, payload.data, payload.size, payload.data - 4) || is_utf8(text, payload.size);
        failed = is_text && PyList_Append(messages, message) < 0;
        Py_DECREF(message);
        if (failed)
            goto done;
        if (!is_text)
            break;
        position += payload.data + payload.size - data.data;
        data.size -= payload.data + payload.size - data.data;
        data.data = payload.data + payload.size;
    }
    result = Py_BuildValue("On", messages, position);
done:
    Py_DECREF(messages);
    return result;
}

/* texts_between, of codecs/payload.py */

/* True for a text that is written in JSON as it is: printable ASCII without quotes and backslashes. */
static int is_plain(const unsigned char *text, Py_ssize_t size)
{
    int found = 0;
    Py_ssize_t i;

    for (i = 0; i < size; i++) /* without a branch, so that compilers check many bytes at a time */
        found |= (text[i] < 0x20) | (text[i] > 0x7E) | (text[i] == '"') | (text[i] == '\\');
    return !found;
}

static PyObject *texts_between(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    Span message, prefix, suffix;
    PyObject *messages, *texts;
    Py_ssize_t i, size;

    if (!has_arguments(count, 3) || !as_span(arguments[1], &prefix) || !as_span(arguments[2], &suffix))
        return NULL;
    /* A tuple cannot change meanwhile. */
    messages = PySequence_Tuple(arguments[0]);
    if (messages == NULL)
        return NULL;
    texts = PyList_New(0);
    if (texts == NULL)
        goto failed;
    for (i = 0; i < PyTuple_Size(messages); i++) {
        PyObject *item = PyTuple_GetItem(messages, i), *text;

        if (!PyBytes_CheckExact(item))
            goto other;
        if (!as_span(item, &message))
            goto failed;
        size = message.size - prefix.size - suffix.size;
        if (size < 0 || memcmp(message.data, prefix.data, prefix.size) != 0 ||
            memcmp(message.data + prefix.size + size, suffix.data, suffix.size) != 0 ||
            !is_plain(message.data + prefix.size, size))
            goto other;
        text = PyBytes_FromStringAndSize((const char *)message.data + prefix.size, size);
        if (text == NULL || PyList_Append(texts, text) < 0) {
            Py_XDECREF(text);
            goto failed;
        }
        Py_DECREF(text);
    }
    Py_DECREF(messages);
    return texts;
other:
    Py_DECREF(messages);
    Py_DECREF(texts);
    return PyList_New(0);
failed:
    Py_DECREF(messages);
    Py_XDECREF(texts);
    return NULL;
}

/* join_numbered and join_numbered_frames, of codecs/framing.py */

/* A number as decimal digits. The largest is less than 2^64 + 2^63, which has 20 digits. */
typedef struct {
    char digits[24];
    Py_ssize_t size;
} Number;

static void set_number(Number *number, unsigned long long value)
{
    char reversed[24];
    Py_ssize_t i;

    number->size = 0;
    do {
        reversed[number->size++] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    for (i = 0; i < number->size; i++)
        number->digits[i] = reversed[number->size - 1 - i];
}

/* Add one to the digits: nine of ten times only the last one changes. */
static void increase(Number *number)
{
    Py_ssize_t i = number->size;

    while (i > 0 && number->digits[i - 1] == '9')
        number->digits[--i] = '0';
    if (i > 0) {
        number->digits[i - 1]++;
        return;
    }
    /* All were nines: a one and as many zeros. */
    number->digits[number->size++] = '0';
    number->digits[0] = '1';
}

static unsigned char *append(unsigned char *target, const void *data, Py_ssize_t size)
{
    memcpy(target, data, size);
    return target + size;
}

/* Bytes of the head of a final, unmasked text frame (RFC 6455 section 5.2). */
static Py_ssize_t head_size(Py_ssize_t size)
{
    return size < SIZE_IN_16_BITS ? 2 : size < 65536 ? 4 : 10;
}

static unsigned char *append_head(unsigned char *target, Py_ssize_t size)
{
    int bytes = (int)head_size(size) - 2;

    *target++ = FINAL_TEXT;
    *target++ = (unsigned char)(bytes == 0 ? size : bytes == 2 ? SIZE_IN_16_BITS : SIZE_IN_64_BITS);
    while (bytes-- > 0)
        *target++ = (unsigned char)((unsigned long long)size >> 8 * bytes & 0xFF);
    return target;
}

static PyObject *numbered(PyObject *const *arguments, Py_ssize_t count, int is_framed)
{
    Span before, after, end, payload;
    Number number;
    unsigned long long first;
    Py_ssize_t total = 0, fixed, messages, size, i;
    PyObject *payloads, *result = NULL;
    unsigned char *target;

    if (!has_arguments(count, 5) || !as_span(arguments[0], &before) || !as_span(arguments[2], &after) ||
        !as_span(arguments[4], &end))
        return NULL;
    first = PyLong_AsUnsignedLongLong(arguments[1]);
    if (PyErr_Occurred())
        return NULL;
    /* A tuple cannot change between the two loops: the first adds up what the second writes. */
    payloads = PySequence_Tuple(arguments[3]);
    if (payloads == NULL)
        return NULL;
    messages = PyTuple_Size(payloads);
    fixed = before.size + after.size + end.size;
    set_number(&number, first);
    for (i = 0; i < messages; i++, increase(&number)) {
        if (!as_span(PyTuple_GetItem(payloads, i), &payload))
            goto done;
        size = fixed + number.size + payload.size;
        if (size > PY_SSIZE_T_MAX - 10 - total) {
            PyErr_NoMemory();
            goto done;
        }
        total += size + (is_framed ? head_size(size) : 0);
    }
    result = PyBytes_FromStringAndSize(NULL, total);
    if (result == NULL)
        goto done;
    target = (unsigned char *)PyBytes_AsString(result);
    set_number(&number, first);
    for (i = 0; i < messages; i++, increase(&number)) {
        as_span(PyTuple_GetItem(payloads, i), &payload);
        if (is_framed)
            target = append_head(target, fixed + number.size + payload.size);
        target = append(target, before.data, before.size);
        target = append(target, number.digits, number.size);
        target = append(target, after.data, after.size);
        target = append(target, payload.data, payload.size);
        target = append(target, end.data, end.size);
    }
done:
    Py_DECREF(payloads);
    return result;
}

static PyObject *join_numbered(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    return numbered(arguments, count, 0);
}

static PyObject *join_numbered_frames(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    return numbered(arguments, count, 1);
}

static PyMethodDef methods[] = {
    {"scan_frames", (PyCFunction)(void (*)(void))scan_frames, METH_FASTCALL, NULL},
    {"texts_between", (PyCFunction)(void (*)(void))texts_between, METH_FASTCALL, NULL},
    {"join_numbered", (PyCFunction)(void (*)(void))join_numbered, METH_FASTCALL, NULL},
    {"join_numbered_frames", (PyCFunction)(void (*)(void))join_numbered_frames, METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static int add_digest(PyObject *module)
{
    return PyModule_AddStringConstant(module, "_source_digest", SOURCE_DIGEST);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)add_digest}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "twistedsock._speed", .m_size = 0, .m_methods = methods, .m_slots = slots,
};

PyMODINIT_FUNC PyInit__speed(void)
{
    return PyModuleDef_Init(&definition);
}

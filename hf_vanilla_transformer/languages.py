# Copyright 2026 The hf_vanilla_transformer authors.
# SPDX-License-Identifier: Apache-2.0
"""Language codes of ISO 639, alone ("ko", "kor") or with a script or a region ("zh-Hans", "pt_BR").

A recipe's ``source_lang`` and ``target_lang`` are also names of columns, so a name that is not shaped like a language
tag, such as "question", is accepted: it has no language. A name with the shape of a two-letter code has to be one.
"""

import re

# The codes of ISO 639-1, their codes in ISO 639-2 (terminological/bibliographic), and the English names.
_TABLE = """
aa aar Afar; ab abk Abkhazian; ae ave Avestan; af afr Afrikaans; ak aka Akan; am amh Amharic; an arg Aragonese;
ar ara Arabic; as asm Assamese; av ava Avaric; ay aym Aymara; az aze Azerbaijani; ba bak Bashkir; be bel
Belarusian; bg bul Bulgarian; bi bis Bislama; bm bam Bambara; bn ben Bengali; bo bod/tib Tibetan; br bre Breton;
bs bos Bosnian; ca cat Catalan; ce che Chechen; ch cha Chamorro; co cos Corsican; cr cre Cree; cs ces/cze Czech;
cu chu Church Slavic; cv chv Chuvash; cy cym/wel Welsh; da dan Danish; de deu/ger German; dv div Divehi; dz dzo
Dzongkha; ee ewe Ewe; el ell/gre Greek; en eng English; eo epo Esperanto; es spa Spanish; et est Estonian; eu
eus/baq Basque; fa fas/per Persian; ff ful Fulah; fi fin Finnish; fj fij Fijian; fo fao Faroese; fr fra/fre
French; fy fry Western Frisian; ga gle Irish; gd gla Scottish Gaelic; gl glg Galician; gn grn Guarani; gu guj
Gujarati; gv glv Manx; ha hau Hausa; he heb Hebrew; hi hin Hindi; ho hmo Hiri Motu; hr hrv Croatian; ht hat
Haitian Creole; hu hun Hungarian; hy hye/arm Armenian; hz her Herero; ia ina Interlingua; id ind Indonesian; ie
ile Interlingue; ig ibo Igbo; ii iii Sichuan Yi; ik ipk Inupiaq; io ido Ido; is isl/ice Icelandic; it ita
Italian; iu iku Inuktitut; ja jpn Japanese; jv jav Javanese; ka kat/geo Georgian; kg kon Kongo; ki kik Kikuyu;
kj kua Kuanyama; kk kaz Kazakh; kl kal Kalaallisut; km khm Khmer; kn kan Kannada; ko kor Korean; kr kau Kanuri;
ks kas Kashmiri; ku kur Kurdish; kv kom Komi; kw cor Cornish; ky kir Kyrgyz; la lat Latin; lb ltz Luxembourgish;
lg lug Ganda; li lim Limburgish; ln lin Lingala; lo lao Lao; lt lit Lithuanian; lu lub Luba-Katanga; lv lav
Latvian; mg mlg Malagasy; mh mah Marshallese; mi mri/mao Maori; mk mkd/mac Macedonian; ml mal Malayalam; mn mon
Mongolian; mr mar Marathi; ms msa/may Malay; mt mlt Maltese; my mya/bur Burmese; na nau Nauru; nb nob Norwegian
Bokmål; nd nde North Ndebele; ne nep Nepali; ng ndo Ndonga; nl nld/dut Dutch; nn nno Norwegian Nynorsk; no nor
Norwegian; nr nbl South Ndebele; nv nav Navajo; ny nya Chichewa; oc oci Occitan; oj oji Ojibwa; om orm Oromo; or
ori Odia; os oss Ossetian; pa pan Punjabi; pi pli Pali; pl pol Polish; ps pus Pashto; pt por Portuguese; qu que
Quechua; rm roh Romansh; rn run Rundi; ro ron/rum Romanian; ru rus Russian; rw kin Kinyarwanda; sa san Sanskrit;
sc srd Sardinian; sd snd Sindhi; se sme Northern Sami; sg sag Sango; sh hbs Serbo-Croatian; si sin Sinhala; sk
slk/slo Slovak; sl slv Slovenian; sm smo Samoan; sn sna Shona; so som Somali; sq sqi/alb Albanian; sr srp
Serbian; ss ssw Swati; st sot Southern Sotho; su sun Sundanese; sv swe Swedish; sw swa Swahili; ta tam Tamil; te
tel Telugu; tg tgk Tajik; th tha Thai; ti tir Tigrinya; tk tuk Turkmen; tl tgl Tagalog; tn tsn Tswana; to ton
Tongan; tr tur Turkish; ts tso Tsonga; tt tat Tatar; tw twi Twi; ty tah Tahitian; ug uig Uyghur; uk ukr
Ukrainian; ur urd Urdu; uz uzb Uzbek; ve ven Venda; vi vie Vietnamese; vo vol Volapük; wa wln Walloon; wo wol
Wolof; xh xho Xhosa; yi yid Yiddish; yo yor Yoruba; za zha Zhuang; zh zho/chi Chinese; zu zul Zulu
"""

# Codes that are often written by mistake, most of them codes of a country, and the code of its language.
_MISTAKEN = {
    "al": "sq", "at": "de", "au": "en", "bd": "bn", "by": "be", "cn": "zh", "cz": "cs", "dk": "da", "gb": "en",
    "ge": "ka", "gr": "el", "hk": "zh", "il": "he", "in": "id", "iq": "ar", "ir": "fa", "iw": "he", "ji": "yi",
    "jp": "ja", "kr": "ko", "kz": "kk", "mm": "my", "mx": "es", "ph": "tl", "pk": "ur", "rs": "sr", "se": "sv",
    "sp": "es", "ua": "uk", "us": "en", "vn": "vi",
}  # fmt: skip
_TAG = re.compile(r"([A-Za-z]{2,3})(?:[-_][A-Za-z0-9]+)*")


def _read_table() -> tuple[dict[str, str], dict[str, str]]:
    """Return the names by two-letter code, and the two-letter codes by three-letter code."""
    names: dict[str, str] = {}
    short: dict[str, str] = {}
    for entry in " ".join(_TABLE.split()).split("; "):
        code, long_codes, name = entry.split(" ", 2)
        names[code] = name
        short |= dict.fromkeys(long_codes.split("/"), code)
    short |= {"cmn": "zh", "yue": "zh", "arb": "ar", "pes": "fa", "zsm": "ms", "swh": "sw", "npi": "ne", "ekk": "et"}
    return names, short


_NAMES, _SHORT = _read_table()
_BY_NAME = {name.lower(): code for code, name in _NAMES.items()}


def base_language(name: str) -> str | None:
    """Return the two-letter code of a language tag or an English name of a language, e.g. "ko" of "kor_Hang".

    Args:
        name: "ko", "kor", "zh-Hans", "pt_BR" or "Korean".

    Returns:
        A code of ISO 639-1, a three-letter code that has none, or None for a name that is neither.
    """
    if name.strip().lower() in _BY_NAME:
        return _BY_NAME[name.strip().lower()]
    found = _TAG.fullmatch(name)
    if found is None:
        return None
    code = found[1].lower()
    code = _SHORT.get(code, code)
    return code if len(code) == 3 or code in _NAMES else None


def language_name(name: str) -> str | None:
    """Return the English name of the language of a tag, e.g. "Korean" of "ko-KR"; None if it is not in ISO 639-1."""
    return _NAMES.get(base_language(name) or "")


def check_language(name: str, option: str) -> None:
    """Check that a name with the shape of a two-letter language code is a language code.

    Args:
        name: a language code, or another name of one side of a corpus.
        option: what was set to it, for the message.

    Raises:
        ValueError: If it is not, such as "jp" or "xx".
    """
    found = _TAG.fullmatch(name)
    if found is None or len(found[1]) != 2 or base_language(name) is not None:
        return
    right = _MISTAKEN.get(found[1].lower())
    raise ValueError(
        f"{option}: {name!r} is not a language code of ISO 639; "
        + (
            f"{_NAMES[right]} is {right!r}"
            if right is not None
            else "write e.g. 'ko' for Korean, or, for a language without a code, a longer name"
        )
    )


def doubtful_language(name: str, option: str) -> str | None:
    """Return a warning if a name is the code of a language that is rarely meant, or a name instead of a code.

    Args:
        name, option: see `check_language`.
    """
    found = _TAG.fullmatch(name)
    code = "" if found is None else found[1].lower()
    if code in _NAMES and code in _MISTAKEN:
        right = _MISTAKEN[code]
        return (
            f"{option}: {name!r} is the language code of {_NAMES[code]}; if you mean {_NAMES[right]}, write {right!r}"
        )
    if name.strip().lower() in _BY_NAME:
        return f"{option}: {name!r} is not a language code; write {_BY_NAME[name.strip().lower()]!r}"
    return None


__all__ = ["base_language", "check_language", "doubtful_language", "language_name"]

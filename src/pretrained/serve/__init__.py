"""A Hub of one's own: folders of models, a Hugging Face cache, or a store that clients may write to, over HTTP.

    objects, names              git's names of things; what repositories, revisions and files may be called
    repository                  what every kind of repository can be asked
    folders, digests, cache     the two kinds that are only read
    store, store_repository     the kind that is written to; disk_store, edits, sweep
    people, site                users and organisations; what is served, and who may do what
    calls, routes, app          from a request to the function that answers it; refusals, replies
    reading, pages              what is read; markup, picture, style, cards, tensors
    writing, committing         what is written; discussions, ignoring
    uploads, xet                large files; partials, signing, xet_format
    running                     the server itself

Importing the package imports neither starlette nor uvicorn.
"""

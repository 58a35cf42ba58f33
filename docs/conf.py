"""How Sphinx builds the site from the pages that prepare.py wrote."""
import sys, tomllib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from housekeeping import describe_page, finish_site, sign_page
from prepare import describe_entry, plain_types, show_folds, source_link as linkcode_resolve

about = tomllib.loads((Path(__file__).resolve().parent.parent/"pyproject.toml").read_text())["project"]
project, author = "sentiment_nbdev", about["authors"][0]["name"]
html_title = project
html_baseurl = about["urls"]["Documentation"]   # for the canonical address of a page
html_search_scorer = str(Path(__file__).resolve().parent/"scorer.js")
extensions = ["myst_nb", "sphinx_copybutton", "sphinx.ext.githubpages", "sphinx.ext.autodoc", "sphinx.ext.linkcode"]
smartquotes = False                             # --flags stay --flags
html_domain_indices = False                      # the list of modules is a page of its own
autodoc_preserve_defaults, autodoc_typehints_format, autodoc_member_order = True, "short", "alphabetical"
source_suffix = {".ipynb": "myst-nb", ".md": "myst-nb"}
nb_execution_mode = "off"                       # outputs are stored in the notebooks
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence", "attrs_inline", "attrs_block", "fieldlist", "strikethrough"]
myst_heading_anchors = 4
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(?!sentiment_nbdev\.).*")]   # types of other packages; ours must be found
python_use_unqualified_type_names = True
add_module_names = False
python_maximum_signature_line_length = 88
copybutton_prompt_text = r">>> |\$ "
copybutton_prompt_is_regexp = True
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files, html_js_files = ["custom.css"], ["access.js"]
html_extra_path = ["_extra"]                    # page.html.md and llms.txt
html_context = dict(default_mode="auto")         # light or dark as the reader's system says
html_favicon = "_static/favicon.svg"
html_theme_options = dict(repository_url=about["urls"]["Repository"], repository_branch="main", path_to_docs="nbs", use_repository_button=True,
                          use_issues_button=True, use_edit_page_button=False, use_download_button=False, home_page_in_toc=False, show_toc_level=2)
mathjax_path = "mathjax/tex-svg-full.js"        # served from the site itself


def setup(app):
    app.connect("autodoc-process-docstring", describe_entry)
    app.connect("autodoc-before-process-signature", plain_types)
    app.connect("html-page-context", show_folds)
    app.connect("html-page-context", describe_page)
    app.connect("html-page-context", sign_page)
    app.connect("build-finished", finish_site)
